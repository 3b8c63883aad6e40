"""What is measured on, and how: the sizes of a run, and means within a time budget."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

MAX_REPEATS = 2000


@dataclass(frozen=True)
class Shapes:
    """Sizes of a run as one rank sees them. `chunk_tokens` is the global chunk, shared by `num_ranks` ranks."""

    hidden: int
    mlp_width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_layers: int
    num_parameters: int
    chunk_tokens: int
    num_chunks: int
    num_ranks: int

    @property
    def local_rows(self) -> int:
        return self.chunk_tokens // self.num_ranks

    @property
    def own_heads(self) -> int:
        """Padding included, where the ranks do not divide the heads."""
        return math.ceil(self.num_heads / self.num_ranks)

    @property
    def own_kv_heads(self) -> int:
        """Copies included, where the ranks do not divide the heads: as many as own query heads can be dealt out to."""
        least = math.ceil(self.num_kv_heads / self.num_ranks)
        return next(count for count in range(least, self.own_heads + 1) if self.own_heads % count == 0)


class Timer:
    """Means within a time budget that is shared evenly among `num_measurements`.

    Means, not medians: a step is a sum of ops, those that were interrupted included.
    """

    def __init__(self, seconds: float, num_measurements: int) -> None:
        self._share = seconds / num_measurements

    def mean(self, body: Callable[[], object], collective: bool = False) -> float:
        """Seconds of one call, after one to warm up. Ranks repeat a collective equally often."""
        body()
        started = time.perf_counter()
        times = [timed(body)]
        if collective:
            times += [timed(body) for _ in range(_agreed(int(self._share / max(times[0], 1e-7))))]
        while not collective and len(times) < MAX_REPEATS and time.perf_counter() - started < self._share:
            times.append(timed(body))
        return statistics.fmean(times)


def timed(body: Callable[[], object]) -> float:
    started = time.perf_counter()
    body()
    return time.perf_counter() - started


def _agreed(repeats: int) -> int:
    count = torch.tensor([min(repeats, MAX_REPEATS)])
    dist.all_reduce(count, op=dist.ReduceOp.MIN)
    return int(count[0])


Probe = Callable[[Shapes, Timer], dict[str, float]]
"""Measures some rates; all ranks call it together."""
