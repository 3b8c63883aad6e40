"""What a rank's host does beside computing: issuing ops, and reading and writing files."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch

from fpdt.devices import CpuRuntime
from fpdt.devices.file_pool import ALIGNMENT_BYTES, FilePool
from fpdt.measure.probe import Shapes, Timer
from fpdt.run.arena import mapped_arena
from fpdt.run.context import Frame
from fpdt.run.link import LinkedSection
from fpdt.run.runtime import LinkedCall

FILE_BYTES = 32 << 20
LOOP_OPS = 1000


def host_rates(shapes: Shapes, timer: Timer) -> dict[str, float]:
    """Of the thread that issues ops: the run loop around a handler that does nothing, and one small kernel."""
    tiny = torch.zeros(1)

    def kernels() -> None:
        for _ in range(LOOP_OPS):
            tiny.add_(1)

    with torch.no_grad():
        return {
            "hostSecondsPerOp": timer.mean(_empty_loop()) / LOOP_OPS,
            "hostSecondsPerKernel": timer.mean(kernels) / LOOP_OPS,
        }


def _empty_loop() -> Callable[[], None]:
    """The device's own loop over a call of LOOP_OPS ops of two views, as sections are linked for it."""
    arena = mapped_arena("loop", ALIGNMENT_BYTES)
    runtime = CpuRuntime({arena.pool: arena}, {}, ("compute", "comm"))
    view = arena.view(0, "float32", (1,), (1,))
    section = LinkedSection(cast(Any, SimpleNamespace(name="empty", num_ops=LOOP_OPS)), Frame(runtime))
    section.handlers = [lambda ctx, x, y: None] * LOOP_OPS
    section.contexts = [cast(Any, None)] * LOOP_OPS
    section.views = [(view, view)] * LOOP_OPS
    section.kinds = section.streams = [0] * LOOP_OPS
    section.gates = [None] * LOOP_OPS
    section.kind_counts, section.first_ops = [(0, LOOP_OPS)], [0, -1]
    call = LinkedCall(section, (), None, (0, 0))
    bound = cast(Any, SimpleNamespace(engine=None, layers=()))
    recorder = runtime.make_recorder(("empty",))
    recorder.begin_step()
    return lambda: runtime.run_call(call, bound, recorder)


def disk_rates(shapes: Shapes, timer: Timer, folder: Path | None) -> dict[str, float]:
    """Of the rows of a layer's input that a rank has of a chunk, in a file as the worker's; 0 without a folder."""
    if folder is None:
        return {"diskReadBytes": 0.0, "diskWriteBytes": 0.0}
    row_bytes = 4 * shapes.hidden
    block = -(-shapes.local_rows * row_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
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
