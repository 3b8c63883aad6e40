"""The copies of a section as the copy engine takes them: rows of numbers, with positions on streams in place of ops."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fpdt.errors import PlanError
from fpdt.plan import OP_KINDS, Access, Buffer, Op, Section
from fpdt.plan.sections import Array

_HINT = "plan again: the native engine moves rows that lie together, and nothing else"


class Wait(NamedTuple):
    """For the op at a position of a stream, from 1 on in a section, and all before it on that stream."""

    stream: int
    position: int


@dataclass(frozen=True, slots=True)
class LoweredSection:
    """Rows as ProgramRows of native/cuda/copy_program.h has them, and what those who run the other ops must know.

    `owned` are the ops that the engine launches, in the order of the rows; `positions` of all ops, `ends` of all
    streams. `waits_of`: of an op that somebody else launches the waits for the engine's. `signalled`: ops of others
    that the engine waits for.
    """

    header: Array
    ops: Array
    waits: Array
    pieces: Array
    owned: tuple[int, ...]
    positions: tuple[int, ...]
    ends: tuple[int, ...]
    waits_of: Mapping[int, tuple[Wait, ...]]
    signalled: frozenset[int]


def lower(
    section: Section, owned_streams: Collection[int], arenas: Sequence[str], closed_streams: Collection[int] = ()
) -> LoweredSection:
    """`arenas`: names of pools in the order that the engine knows them by. `closed_streams`: of others, who give the
    end of a call a position of its own, one after the last op's.

    Raises PlanError for an op on a stream of the engine's that is not a copy between arenas of rows that lie together.
    """
    streams = section.columns.stream[section.rows].tolist()
    positions, ends = _positions(streams, len(section.streams))
    for stream in closed_streams:
        ends[stream] += 1
    waits = [_waits(section, op, streams, positions) for op in range(section.num_ops)]
    awaited = {(wait.stream, wait.position) for found in waits for wait in found}
    owned = [op for op in section.make_ops() if streams[op.id] in owned_streams]
    rows: list[list[int]] = []
    wait_rows: list[Wait] = []
    piece_rows: list[list[int]] = []
    for op in owned:
        stream, position = streams[op.id], positions[op.id]
        signals = position == ends[stream] or (stream, position) in awaited
        pieces = _pieces(section, op, arenas)
        rows.append([stream, position, int(signals), len(waits[op.id]), len(pieces)])
        wait_rows += waits[op.id]
        piece_rows += pieces
    return LoweredSection(
        header=np.array([len(section.params), *ends], np.int64),
        ops=_rows(rows, 5),
        waits=_rows(wait_rows, 2),
        pieces=_rows(piece_rows, 9),
        owned=tuple(op.id for op in owned),
        positions=tuple(positions),
        ends=tuple(ends),
        waits_of=_waits_of_others(waits, streams, owned_streams),
        signalled=_signalled(owned, waits, streams, positions, owned_streams),
    )


def nothing(num_streams: int, closed_streams: Collection[int]) -> LoweredSection:
    """A section without ops, which ends all the same."""
    ends = [int(stream in closed_streams) for stream in range(num_streams)]
    return bare(ends, [], [], [])


def bare(
    ends: Sequence[int], ops: Sequence[Sequence[int]], waits: Sequence[Sequence[int]], pieces: Sequence[Sequence[int]]
) -> LoweredSection:
    """Rows of no section, without arguments, whose positions the caller knows."""
    header = np.array([0, *ends], np.int64)
    rows = _rows(ops, 5), _rows(waits, 2), _rows(pieces, 9)
    return LoweredSection(header, *rows, owned=(), positions=(), ends=tuple(ends), waits_of={}, signalled=frozenset())


def _positions(streams: Sequence[int], num_streams: int) -> tuple[list[int], list[int]]:
    ends, positions = [0] * num_streams, list[int]()
    for stream in streams:
        ends[stream] += 1
        positions.append(ends[stream])
    return positions, ends


def _waits(section: Section, op: int, streams: Sequence[int], positions: Sequence[int]) -> tuple[Wait, ...]:
    """The last op of each other stream that it waits for: a stream keeps its order."""
    last: dict[int, int] = {}
    for wait in section.waits(op):
        if streams[wait] != streams[op]:
            last[streams[wait]] = max(positions[wait], last.get(streams[wait], 0))
    return tuple(Wait(stream, position) for stream, position in sorted(last.items()))


def _waits_of_others(
    waits: Sequence[tuple[Wait, ...]], streams: Sequence[int], owned: Collection[int]
) -> dict[int, tuple[Wait, ...]]:
    found = {}
    for op, mine in enumerate(waits):
        if streams[op] not in owned and any(wait.stream in owned for wait in mine):
            found[op] = tuple(wait for wait in mine if wait.stream in owned)
    return found


def _signalled(
    copies: Sequence[Op],
    waits: Sequence[tuple[Wait, ...]],
    streams: Sequence[int],
    positions: Sequence[int],
    owned: Collection[int],
) -> frozenset[int]:
    awaited = {wait for op in copies for wait in waits[op.id] if wait.stream not in owned}
    places = {(stream, position): op for op, (stream, position) in enumerate(zip(streams, positions, strict=True))}
    return frozenset(places[wait] for wait in awaited)


def _pieces(section: Section, op: Op, arenas: Sequence[str]) -> list[list[int]]:
    if OP_KINDS[op.kind].stream != "link":
        raise PlanError(
            f"op {op.id} {op.kind} of {section.name} is on the stream {op.stream}, which only copies", _HINT
        )
    reads, writes = op.reads, op.writes
    if len(reads) != len(writes):
        raise PlanError(f"op {op.id} of {section.name} copies {len(reads)} views to {len(writes)}", _HINT)
    return [_piece(section, read, write, arenas) for read, write in zip(reads, writes, strict=True)]


def _piece(section: Section, read: Access, write: Access, arenas: Sequence[str]) -> list[int]:
    source, target = section.buffers[read.buffer], section.buffers[write.buffer]
    num_bytes = (write.end - write.start) * target.row_bytes
    is_same = source.dtype == target.dtype and source.shape[1:] == target.shape[1:]
    is_same = is_same and source.strides == target.strides and source.block_rows == target.block_rows
    lie_together = all(buffer.pitch_bytes == buffer.row_bytes for buffer in (source, target))
    if not is_same or not lie_together or read.end - read.start != write.end - write.start:
        text = f"{section.access_text(read)} to {section.access_text(write)}"
        raise PlanError(f"{section.name} copies {text}, which is not one block of bytes", _HINT)
    return [num_bytes, *_place(target, write, arenas), *_place(source, read, arenas)]


def _place(buffer: Buffer, access: Access, arenas: Sequence[str]) -> list[int]:
    if buffer.pool not in arenas:
        raise PlanError(f"{buffer.name} lives in {buffer.pool}, which is no arena", _HINT)
    offset = buffer.offset + access.index * buffer.instance_bytes + access.start * buffer.pitch_bytes
    return [arenas.index(buffer.pool), access.param, offset, buffer.instance_bytes]


def _rows(rows: Sequence[Sequence[int]], width: int) -> Array:
    return np.array(rows, np.int64).reshape(len(rows), width)
