"""Means within a time budget, on the clock of a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from fpdt.run.runtime import Runtime

MAX_REPEATS = 2000


class Timer:
    """Means within a time budget that is shared evenly among `num_measurements`.

    Means, not medians: a step is a sum of ops, those that were interrupted included.
    """

    def __init__(self, runtime: Runtime, seconds: float, num_measurements: int) -> None:
        self._runtime = runtime
        self._share = seconds / num_measurements

    def mean(self, body: Callable[[], object], collective: bool = False) -> float:
        """Seconds of one call, after one to warm up. Ranks repeat a collective equally often."""
        self.once(body)
        started = time.perf_counter()
        times = [self.once(body)]
        if collective:
            times += [self.once(body) for _ in range(self._agreed(int(self._share / max(times[0], 1e-7))))]
        while not collective and len(times) < MAX_REPEATS and time.perf_counter() - started < self._share:
            times.append(self.once(body))
        return statistics.fmean(times)

    def once(self, body: Callable[[], object]) -> float:
        """Seconds on the device from the first thing that `body` starts to the end of the last."""
        runtime = self._runtime
        start = runtime.mark()
        body()
        runtime.join()
        end = runtime.mark()
        runtime.synchronize()
        return runtime.seconds_between(start, end)

    def _agreed(self, repeats: int) -> int:
        count = torch.tensor([min(repeats, MAX_REPEATS)], device=self._runtime.device)
        dist.all_reduce(count, op=dist.ReduceOp.MIN)
        return int(count[0])
