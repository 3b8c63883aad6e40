"""DeepSpeed's C++ ops, compiled before a test wants them: for minutes, in which ranks would seem to hang."""

from __future__ import annotations

import os
import subprocess
import sys

_COMPILE = """
import sys
from deepspeed.accelerator import get_accelerator
for name in sys.argv[1:]:
    get_accelerator().create_op_builder(name).load(verbose=False)
"""


def compile_ops(*builders: str) -> None:
    """`builders`: `AsyncIOBuilder`, `CPUAdamBuilder`. Fails where there is no compiler, or no libaio for the first."""
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-c", _COMPILE, *builders]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
