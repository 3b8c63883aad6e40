"""`python -m broken_worker`: the echo worker, damaged from outside as the environment says.

BREAK_STDERR=closed closes standard error; BREAK_THREAD plants an exception, which cannot even be printed, in the
socket thread: `at once` or `on ping`.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from fpdt.wire.sockets import SocketLoop
from tests import echo_worker


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("this error cannot be printed")


def fail(*_: Any) -> NoReturn:
    raise UnprintableError


def main() -> None:
    if os.environ.get("BREAK_STDERR") == "closed":
        sys.stderr.close()
    where = os.environ.get("BREAK_THREAD")
    if where is not None:
        setattr(SocketLoop, {"at once": "run", "on ping": "_answer"}[where], fail)
    echo_worker.main()


if __name__ == "__main__":
    main()
