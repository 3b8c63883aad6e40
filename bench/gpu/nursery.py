"""`python -m gpu.nursery DEVICE STAGING RESULT SCRATCH`: steps as forks of one process that has their imports.

A dry run's steps take less time than the imports before them. A line `NAME\tLOG` on stdin starts a step, whose output
goes to LOG; what comes back are its process id, also that of its group, and when it has ended its exit code. Not for a
GPU: what a driver knows of a process does not survive a fork.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

PRELOADED = ("torch", "deepspeed", "transformers", "fpdt.run.session", "fpdt.testing.reference")


def main(device: str, staging: Path, result: Path, scratch: Path) -> None:
    from fpdt.environment import prepare_imports

    prepare_imports(device)
    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except Exception as error:
            # A step that needs it says so by itself, and fails.
            print(f"{name} is not there: {error}", file=sys.stderr)
    for line in sys.stdin:
        name, log = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            _become(device, name, Path(log), (staging, result, scratch))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _become(device: str, name: str, log: Path, places: tuple[Path, Path, Path]) -> None:
    """Does not return."""
    from gpu.step import leave_after

    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    leave_after(device, name, *places)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:5]))
