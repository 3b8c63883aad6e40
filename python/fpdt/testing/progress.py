"""Tells a job that hangs from one that is slow: what counts is processor time of its processes, not time on a clock."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from fpdt.wire.procfs import read_stat, thread_states

TICK_SECONDS = 0.25
MAX_IDLE_CPU_SHARE = 0.03
"""Of a processor: what the background threads of a process that waits may use. Two threads of gloo took 0.7%."""
MAX_IDLE_READY_SHARE = 0.1
"""Of the ticks: how often such a process may be seen waiting for a processor or a disk."""


class IdleWatch:
    """Whether none of some processes has moved for `idle_seconds`.

    Time is counted in ticks of the watcher: while it is suspended, or gets no processor itself, no time passes. A
    process moves when it uses a processor, or when its main thread is ready to or any of its threads waits for a disk:
    a machine may be too busy to run it. A loop without end moves too; whoever started the watcher must bound that.
    """

    def __init__(self, pids: Iterable[int], idle_seconds: float) -> None:
        self._num_ticks = max(1, math.ceil(idle_seconds / TICK_SECONDS))
        self._looks: dict[int, deque[_Look]] = {pid: deque(maxlen=self._num_ticks + 1) for pid in pids}

    @property
    def is_idle(self) -> bool:
        return all(self._is_idle(looks) for looks in self._looks.values())

    def tick(self) -> None:
        """To be called after every TICK_SECONDS."""
        for pid, looks in self._looks.items():
            looks.append(_look_at(pid))

    def reset(self) -> None:
        """Something else shows that they move."""
        for looks in self._looks.values():
            looks.clear()

    def _is_idle(self, looks: deque[_Look]) -> bool:
        if len(looks) <= self._num_ticks:
            return False
        max_cpu = MAX_IDLE_CPU_SHARE * self._num_ticks * TICK_SECONDS * os.sysconf("SC_CLK_TCK")
        num_ready = sum(look.is_ready for look in looks)
        return looks[-1].cpu_ticks - looks[0].cpu_ticks <= max_cpu and num_ready <= MAX_IDLE_READY_SHARE * len(looks)


class _Look(NamedTuple):
    cpu_ticks: int
    is_ready: bool


def _look_at(pid: int) -> _Look:
    stat = read_stat(pid)
    if stat is None or stat.has_ended:
        return _Look(0, False)
    return _Look(stat.cpu_ticks, stat.state in "RD" or "D" in thread_states(pid))
