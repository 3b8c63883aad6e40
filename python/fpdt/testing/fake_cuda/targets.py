"""The modules of the CUDA runtime that are broken, and what finds it out."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, ModuleType

from fpdt.devices import cuda, host_arena, launch_order
from fpdt.plan import Plan
from fpdt.testing.fake_cuda.host_trial import try_host_arena, try_launch_order
from fpdt.testing.fake_cuda.oracle import OrderError
from fpdt.testing.fake_cuda.trial import try_runtime

SEEDS = (0, 1)
LIMIT_SECONDS = 20
BLOCKED_SECONDS = 120
"""The first of the processor's time, whatever else the machine does; the second of who waits and does nothing."""


@dataclass(frozen=True)
class Target:
    """A module, functions of it that start, order, lock and wait for nothing, and what a broken one does not pass."""

    module: ModuleType
    left_out: frozenset[str]
    check: Callable[[ModuleType, Sequence[Plan]], None]

    def try_module(self, module: ModuleType, plans: Sequence[Plan]) -> None:
        """Raises OrderError for what `module` in the place of the target does wrong, and whatever else it raises."""
        with _limited():
            self.check(module, plans)


TARGETS = (
    Target(
        cuda,
        frozenset({"device_peak_bytes", "reset_device_peak"}),
        lambda module, plans: try_runtime(module, plans, SEEDS),
    ),
    Target(launch_order, frozenset(), try_launch_order),
    Target(
        host_arena,
        # Whose pages they are, and where, makes no copy wrong; the driver is another here.
        frozenset({"pinned_arena", "_map", "_touch", "_near_cpus", "_numbers", "_last_error", "_cudart"}),
        try_host_arena,
    ),
)


@contextmanager
def _limited() -> Iterator[None]:
    """A runtime that waits for ever fails too."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OrderError(f"no end within {LIMIT_SECONDS} s of work, or {BLOCKED_SECONDS} s")

    limits = [
        (signal.SIGPROF, signal.ITIMER_PROF, LIMIT_SECONDS),
        (signal.SIGALRM, signal.ITIMER_REAL, BLOCKED_SECONDS),
    ]
    before = [signal.signal(number, stop) for number, _, _ in limits]
    for _, timer, seconds in limits:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(limits, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
