"""What the copy engine must do on this machine before a run counts on it: bytes there and back, in order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.cuda import Stream

from fpdt.copies import CopyEngine, CopyEngineError, LoweredSection, bare
from fpdt.run.arena import Arena
from fpdt.run.runtime import COMPUTE

NUM_BYTES = 256
"""Sent from the first arena to the last, and back to the bytes behind."""


def try_copies(
    engine: CopyEngine, owned: Sequence[int], arenas: Sequence[Arena], num_streams: int, stream: Stream
) -> None:
    """Copies are queued before the bytes are there, on the first and the last stream of `owned`; arenas stay as they
    were. `stream` is the one of compute, current. Raises CopyEngineError where something else arrives.
    """
    places = [place for place, arena in enumerate(arenas) if arena.num_bytes >= 3 * NUM_BYTES]
    if not places or not owned:
        return
    near, far = arenas[places[0]].tensor, arenas[places[-1]].tensor
    before = near[: 2 * NUM_BYTES].clone(), far[2 * NUM_BYTES : 3 * NUM_BYTES].clone()
    message = torch.arange(NUM_BYTES, dtype=torch.uint8)
    program = _there_and_back(num_streams, owned[0], owned[-1], places[0], places[-1])
    bases = engine.run(engine.load(program), (), (0,) * num_streams)
    near[:NUM_BYTES].copy_(message)
    near[NUM_BYTES : 2 * NUM_BYTES].zero_()
    engine.write(COMPUTE, bases[COMPUTE] + 1, stream.cuda_stream)
    engine.wait(owned[-1], bases[owned[-1]] + program.ends[owned[-1]], stream.cuda_stream)
    stream.synchronize()
    has_arrived = torch.equal(near[NUM_BYTES : 2 * NUM_BYTES].cpu(), message)
    near[: 2 * NUM_BYTES].copy_(before[0])
    far[2 * NUM_BYTES : 3 * NUM_BYTES].copy_(before[1])
    if not has_arrived:
        raise CopyEngineError(
            f"{NUM_BYTES} bytes that native copies sent out and back did not come back as they were",
            "update the driver, or leave out --copy-mode native",
        )


def _there_and_back(num_streams: int, there: int, back: int, near: int, far: int) -> LoweredSection:
    """The way back waits for the way there, and that for compute."""
    ends = [0] * num_streams
    ends[COMPUTE] = ends[there] = 1
    ends[back] += 1
    ops = [[there, 1, 1, 1, 1], [back, ends[back], 1, 1, 1]]
    waits = [[COMPUTE, 1], [there, 1]]
    pieces = [
        [NUM_BYTES, far, -1, 2 * NUM_BYTES, 0, near, -1, 0, 0],
        [NUM_BYTES, near, -1, NUM_BYTES, 0, far, -1, 2 * NUM_BYTES, 0],
    ]
    return bare(ends, ops, waits, pieces)
