"""What a rank's host does beside computing: issuing ops, and reading and writing files."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from fpdt.devices.file_pool import ALIGNMENT_BYTES, FilePool
from fpdt.measure.loops import linked_loop
from fpdt.measure.probe import Timer
from fpdt.run.arena import mapped_arena
from fpdt.run.runtime import COMPUTE, Runtime

FILE_BYTES = 32 << 20
LOOP_OPS = 1000
REPEATS = 5
MIN_SIZE, MAX_SIZE = 512, 8192
"""Of square products that keep a device busy while the host issues LOOP_OPS kernels."""


def host_rates(runtime: Runtime, timer: Timer) -> dict[str, float]:
    """Of the thread that issues ops: the run loop around a handler that does nothing, and one small kernel.

    And what such a kernel takes on the device when the host is ahead of it: behind a product that is long enough.
    """
    tiny = torch.zeros(1, device=runtime.device)

    def kernels() -> None:
        for _ in range(LOOP_OPS):
            tiny.add_(1)

    with torch.no_grad():
        empty = linked_loop(runtime, [(lambda ctx, x, y: None, (tiny, tiny), COMPUTE)] * LOOP_OPS)
        per_op = timer.mean(empty) / LOOP_OPS
        kernels()
        times = [_behind_product(runtime, kernels) for _ in range(REPEATS)]
    on_host, on_device = (statistics.median(pair) / LOOP_OPS for pair in zip(*times, strict=True))
    return {"hostSecondsPerOp": per_op, "hostSecondsPerKernel": on_host, "launchSeconds": on_device}


def _behind_product(runtime: Runtime, kernels: Callable[[], None]) -> tuple[float, float]:
    """Seconds of the host to issue them, and of the device to run them."""
    size = MIN_SIZE
    while True:
        a = torch.zeros(size, size, device=runtime.device)
        begun = runtime.mark()
        a @ a
        start = runtime.mark()
        clock = time.perf_counter()
        kernels()
        issued = time.perf_counter() - clock
        end = runtime.mark()
        runtime.synchronize()
        if runtime.seconds_between(begun, start) >= issued or size >= MAX_SIZE:
            return issued, runtime.seconds_between(start, end)
        size *= 2


def disk_rates(block_bytes: int, timer: Timer, folder: Path | None) -> dict[str, float]:
    """Of blocks in a file as the worker's; 0 without a folder."""
    if folder is None:
        return {"diskReadBytes": 0.0, "diskWriteBytes": 0.0}
    block = -(-block_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    num_blocks = max(2, FILE_BYTES // block)
    memory = mapped_arena("calibrate", block).tensor
    with closing(FilePool(folder, num_blocks * block, "calibrate")) as pool:
        offsets = itertools.cycle(range(0, num_blocks * block, block))
        write = timer.mean(lambda: pool.write(next(offsets), memory).wait())
        # A block that was never written is a hole, or zeros that nobody has to read.
        for offset in range(0, num_blocks * block, block):
            pool.write(offset, memory).wait()
        read = timer.mean(lambda: pool.read(next(offsets), memory).wait())
    return {"diskReadBytes": block / read, "diskWriteBytes": block / write}
