"""Leaving a rank for certain: nothing on the way out can raise, and nothing can hold it up for long."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from contextlib import suppress
from typing import NoReturn

EXIT_FAILED = 1
EXIT_ABORTED = 3
EXIT_COMMS_FAILED = 4
EXIT_ORPHANED = 5
LAST_WORDS_SECONDS = 2.0
"""How long a full pipe, or a thread that holds the lock of a stream, may keep the process."""


def exit_now(code: int, message: str = "", error: BaseException | None = None) -> NoReturn:
    """End the process, after saying `message` and `error` where there is still somebody to hear it.

    Without interpreter teardown: a gloo process may abort there, and a daemon thread would be frozen first.
    """
    try:
        # In a thread of its own: a write may block for ever, a join with a limit does not.
        speaker = threading.Thread(target=_say, args=(message, error), daemon=True)
        speaker.start()
        speaker.join(LAST_WORDS_SECONDS)
    finally:
        os._exit(code)


def _say(message: str, error: BaseException | None) -> None:
    # A dead controller has closed the other end of the streams, and an error may fail to print itself.
    with suppress(BaseException):
        if message:
            print(message, file=sys.stderr)
    with suppress(BaseException):
        if error is not None:
            traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
