"""What the CUDA runtime's helpers must do: the order of launches, and host arenas cut and page-locked.

Each has a slow twin here, or is looked at from outside; a broken one fails.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from unittest import mock

import numpy as np
import torch

from fpdt.devices.launch_order import MAX_AHEAD
from fpdt.errors import ArenaError
from fpdt.plan import Plan
from fpdt.run.arena import Arena, Piece
from fpdt.testing.fake_cuda.device import Device
from fpdt.testing.fake_cuda.install import made_up
from fpdt.testing.fake_cuda.oracle import OrderError, require
from fpdt.testing.fake_cuda.pinned import PinnedRanges

NUM_DRAWS = 300
PAGE_BYTES = 4096
PIECES = ((0, PAGE_BYTES), (PAGE_BYTES, 3 * PAGE_BYTES))


def try_launch_order(module: ModuleType, plans: Sequence[Plan]) -> None:
    """Raises OrderError where the order differs from the twin's, on sections of plans and on made-up ones."""
    for streams, waits in (*_made_up_sections(), *_sections(plans)):
        require(module.launch_order(streams, waits) == _slow_order(streams, waits), "another order of launches")


def try_host_arena(module: ModuleType, plans: Sequence[Plan]) -> None:
    """Raises OrderError for pieces that a view crosses or that could be fewer, and for locks that are wrong."""
    for plan in plans:
        for pool in plan.header.pools:
            found = set(map(tuple, module.view_spans(plan, pool.name).tolist()))
            require(found == _slow_spans(plan, pool.name), "views of a pool are missing, or are elsewhere")
    drawn = random.Random(5)
    for _ in range(NUM_DRAWS):
        _check_cut(module, drawn)
    _check_locks(module)
    for num_allowed in range(2 * len(PIECES)):
        _check_refusal(module, num_allowed)


def _made_up_sections() -> Iterator[tuple[list[int], list[list[int]]]]:
    drawn = random.Random(7)
    for _ in range(NUM_DRAWS):
        num_ops, num_streams = drawn.randrange(40), drawn.randrange(1, 5)
        streams = [drawn.randrange(num_streams) for _ in range(num_ops)]
        waits = [drawn.sample(range(op), min(op, drawn.choice((0, 0, 1, 1, 2)))) for op in range(num_ops)]
        yield streams, waits


def _sections(plans: Sequence[Plan]) -> Iterator[tuple[list[int], list[list[int]]]]:
    for section in (section for plan in plans for section in plan.sections.values()):
        streams = section.columns.stream[section.rows].tolist()
        yield streams, [list(section.waits(op)) for op in range(section.num_ops)]


def _slow_order(streams: Sequence[int], waits: Sequence[Sequence[int]]) -> list[int]:
    """The stream at hand goes on while what its next op waits for is launched and no op left is too far behind."""
    order, current = list[int](), 0
    while len(order) < len(streams):
        left = [op for op in range(len(streams)) if op not in order]
        mine = [op for op in left if streams[op] == current]
        goes_on = bool(mine) and mine[0] <= left[0] + MAX_AHEAD and set(waits[mine[0]]) <= set(order)
        order.append(mine[0] if goes_on else left[0])
        current = streams[order[-1]]
    return order


def _slow_spans(plan: Plan, pool: str) -> set[Piece]:
    found = set[Piece]()
    for access in (one for section in plan.sections.values() for op in section.make_ops() for one in op.accesses):
        buffer = plan.buffers[access.buffer]
        for instance in range(buffer.instances if buffer.pool == pool else 0):
            first = buffer.offset + instance * buffer.instance_bytes
            found.add((first + access.start * buffer.pitch_bytes, first + access.end * buffer.pitch_bytes))
    return found


def _check_cut(module: ModuleType, drawn: random.Random) -> None:
    num_bytes, page, most = drawn.randrange(60), drawn.choice((1, 4, 5)), drawn.randrange(6, 30)
    firsts = [drawn.randrange(60) for _ in range(drawn.randrange(5))]
    spans = [(first, drawn.randrange(first + 1, 62)) for first in firsts if first < num_bytes]
    spans = [(first, min(last, num_bytes)) for first, last in spans]
    expected = _slow_cut(num_bytes, spans, most, page)
    try:
        pieces = module.cut(num_bytes, np.array(spans, np.int64).reshape(-1, 2), most=most, page=page)
    except ArenaError as error:
        require(expected is None and str(most) in str(error), f"cut refuses what can be cut: {error}")
    else:
        require(expected == list(pieces), "other pieces of an arena")


def _slow_cut(num_bytes: int, spans: Sequence[Piece], most: int, page: int) -> list[Piece] | None:
    places = [at for at in range(0, num_bytes + 1, page) if not any(first < at < last for first, last in spans)]
    pieces, start = list[Piece](), 0
    while num_bytes - start > most:
        end = max((at for at in places if start < at <= start + most), default=None)
        if end is None:
            return None
        pieces.append((start, end))
        start = end
    return [*pieces, (start, num_bytes)] if num_bytes > start else pieces


def _check_locks(module: ModuleType) -> None:
    """Every piece in host memory is locked, none on a device; they are given back once, the last one first."""
    released = list[int]()
    with _driver(module, PinnedRanges()) as ranges, mock.patch.object(ranges, "cudaHostUnregister", released.append):
        elsewhere = Arena("elsewhere", torch.empty(PAGE_BYTES, dtype=torch.uint8, device="meta"))
        arenas = [_arena("a"), elsewhere, _arena("b")]
        locks = module.PageLocks(arenas)
        expected = _pieces_of(arenas[0]) | _pieces_of(arenas[2])
        require(ranges.ranges == expected, "page-locked ranges are not the pieces of the arenas")
        for _ in range(2):
            locks.release()
        require(released == list(expected)[::-1], "page-locked memory is not given back once, the last piece first")


def _check_refusal(module: ModuleType, num_allowed: int) -> None:
    """Of a driver that locks so many pieces: nothing stays locked, and no error is left for the next launch."""
    with _driver(module, PinnedRanges(num_allowed)) as ranges:
        try:
            module.PageLocks([_arena("a"), _arena("b")])
        except ArenaError as error:
            size = PIECES[num_allowed % len(PIECES)]
            require(f"{size[1] - size[0]} bytes failed with code 2" in str(error), f"it says something else: {error}")
            require((ranges.ranges, ranges.pending_error) == ({}, 0), "a refusal leaves memory locked, or an error")
        else:
            raise OrderError("memory that cannot be page-locked is used all the same")


@contextmanager
def _driver(module: ModuleType, ranges: PinnedRanges) -> Iterator[PinnedRanges]:
    """The driver is `ranges`, also for a broken module's own search for it."""
    with made_up(Device(), ranges=ranges), mock.patch.object(module, "_last_error", lambda: ranges.cudaGetLastError):
        yield ranges


def _arena(name: str) -> Arena:
    return Arena(name, torch.zeros(PIECES[-1][1], dtype=torch.uint8), pieces=PIECES)


def _pieces_of(arena: Arena) -> dict[int, int]:
    return {arena.tensor.data_ptr() + start: end - start for start, end in arena.pieces}
