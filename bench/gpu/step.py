"""`python -m gpu.step DEVICE NAME STAGING RESULT SCRATCH`: one step; its exit code says whether every check held."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import NoReturn


def main(device: str, name: str, staging: Path, result: Path, scratch: Path) -> int:
    from fpdt.environment import prepare_imports

    prepare_imports(device)
    from gpu.context import Context
    from gpu.device import open_device
    from gpu.lines import Lines
    from gpu.references import References
    from gpu.sizes import device_sizes, step_rows

    table = device_sizes(device)
    row = next(row for row in step_rows(table) if row.name == name)
    lines = Lines(result, name)
    references = References(staging / "sketches", scratch / "sketches")
    context = Context(open_device(device), table, row.sizes, staging, lines, references)
    importlib.import_module(f"gpu.works.{row.work}").run(context)
    for failure in lines.failures:
        print(f"check failed: {failure}", file=sys.stderr)
    return 1 if lines.failures else 0


def leave_after(device: str, name: str, staging: Path, result: Path, scratch: Path) -> NoReturn:
    """Ends the process with the step."""
    try:
        code = main(device, name, staging, result, scratch)
    except Exception:
        traceback.print_exc()
        code = 1
    from fpdt.wire.exits import exit_now

    # gloo's threads may abort the process when it unwinds.
    exit_now(code)


if __name__ == "__main__":
    leave_after(sys.argv[1], sys.argv[2], *map(Path, sys.argv[3:6]))
