"""Ends an engine that would wait for ever: nobody else runs, and nobody is going to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS, NUM_POLLS = 0.02, 10
IDLE_SECONDS = 0.0005
"""Of the processor, by all other threads between two looks: who is only looked at takes less."""


@contextmanager
def freed_when_stuck(free: Callable[[], None]) -> Iterator[None]:
    """Calls `free` when every other thread sleeps, and goes on to: one that is only late is ready to run."""
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(free, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(free: Callable[[], None], ended: threading.Event) -> None:
    others, idle = _others_seconds(), 0
    while not ended.wait(POLL_SECONDS):
        now = _others_seconds()
        idle = idle + 1 if now - others < IDLE_SECONDS and not _others_run() else 0
        others = now
        if idle == NUM_POLLS:
            free()


def _others_seconds() -> float:
    return time.process_time() - time.thread_time()


def _others_run() -> bool:
    own = str(threading.get_native_id())
    for task in Path("/proc/self/task").iterdir():
        try:
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue  # A thread that has ended.
        if task.name != own and state != "S":
            return True
    return False
