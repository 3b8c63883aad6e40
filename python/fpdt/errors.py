"""Errors of the worker. Each carries facts in its message and, in `hint`, the smallest change that helps."""

from __future__ import annotations


class FpdtError(Exception):
    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def is_explained(error: BaseException) -> bool:
    """Whether it says itself what to change, so that nobody needs its traceback."""
    return bool(getattr(error, "hint", ""))


class StopAgreed(Exception):  # noqa: N818 - nothing is wrong
    """Some rank was asked to stop before all of them had begun a step, so none runs it."""


class PlanError(FpdtError):
    """A plan this worker cannot read or run."""


class ArenaError(FpdtError):
    """An arena that cannot be made, or a view outside its arena."""


class ScheduleError(FpdtError):
    """Ops that cannot be executed in the order the plan gives: a wait that nothing will satisfy, parts that overlap."""


class StorageLeakError(FpdtError):
    """A tensor made inside an op is alive after it; only arena buffers may cross ops."""


class DataError(FpdtError):
    """Data that a run cannot train on; names the file, and the line, record or token in it."""
