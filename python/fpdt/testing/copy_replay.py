"""`python -m fpdt.testing.copy_replay PLAN.json [--without-wait N]`: a plan as test/native/copiesMain.cc replays it.

Every call of the program that trains, as the copy engine is given it, and every other op with its waits and the bytes
that it reads (0), writes (1) or accumulates into (2). `--without-wait` leaves out the Nth wait of the engine's copies,
from 0 on: a race, wherever no other wait says the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fpdt.copies import LoweredSection, lower
from fpdt.plan import OP_KINDS, Access, Buffer, Op, Plan, Section, load_plan

Numbers = Iterator[int]
NO_SUCH_WAIT = 3
"""How the process ends where the plan has fewer waits; see scripts/tsan/replay.ts."""


def replay_text(plan: Plan, without_wait: int | None = None) -> str:
    """Numbers as text. Raises IndexError where there is no such wait."""
    arenas = [pool.name for pool in plan.header.pools if pool.kind != "file"]
    owned = owned_streams(plan)
    names = [name for name, section in plan.sections.items() if not _is_external(section)]
    lowered = {name: lower(plan.sections[name], owned, arenas) for name in names}
    if without_wait is not None:
        name, row = droppable_waits(lowered, names)[without_wait]
        lowered[name].waits[row, 1] = 0
    calls = [call for turn in plan.turns for call in turn.calls if call.owner == "plan" and call.section in lowered]
    sizes = [pool.bytes for pool in plan.header.pools if pool.kind != "file"]
    numbers = [len(plan.streams), sum(1 << place for place in owned), len(arenas), len(names), len(calls), *sizes]
    for name in names:
        numbers += _section(plan, plan.sections[name], lowered[name], owned, arenas)
    for call in calls:
        numbers += [names.index(call.section), len(call.args), *call.args, *call.waits]
    return " ".join(map(str, numbers))


def owned_streams(plan: Plan) -> tuple[int, ...]:
    """Places of the streams of links between arenas."""
    kinds = plan.pool_kinds
    links = [link for link in plan.header.links if "file" not in (kinds[link.from_], kinds[link.to])]
    return tuple(sorted(plan.streams.index(link.stream) for link in links))


def droppable_waits(lowered: dict[str, LoweredSection], names: Sequence[str]) -> list[tuple[str, int]]:
    """Waits of the engine's copies, by section and row."""
    return [(name, row) for name in names for row in range(len(lowered[name].waits))]


def _section(
    plan: Plan, section: Section, lowered: LoweredSection, owned: Sequence[int], arenas: Sequence[str]
) -> Numbers:
    waits = lowered.waits[lowered.waits[:, 1] > 0]
    ops = lowered.ops.copy()
    owners = np.repeat(np.arange(len(ops)), ops[:, 3])
    ops[:, 3] = np.bincount(owners[lowered.waits[:, 1] > 0], minlength=len(ops))
    streams = section.columns.stream[section.rows].tolist()
    others = [op for op in section.make_ops() if streams[op.id] not in owned]
    yield from lowered.header.tolist()
    yield from (len(ops), len(waits), len(lowered.pieces), len(others))
    for rows in (ops, waits, lowered.pieces):
        yield from rows.reshape(-1).tolist()
    for op in others:
        yield from _op(plan, section, op, streams, lowered, arenas)


def _op(
    plan: Plan, section: Section, op: Op, streams: list[int], lowered: LoweredSection, arenas: Sequence[str]
) -> Numbers:
    waits = [wait for wait in section.waits(op.id) if streams[wait] != streams[op.id]]
    groups = section.groups(op.id)
    accesses = [(mode, access) for mode, group in enumerate(groups) for access in group]
    views = [(mode, access) for mode, access in accesses if plan.buffers[access.buffer].pool in arenas]
    yield from (streams[op.id], lowered.positions[op.id], len(waits), len(views))
    for wait in waits:
        yield from (streams[wait], lowered.positions[wait])
    for mode, access in views:
        yield mode
        yield from _view(plan.buffers[access.buffer], access, arenas)


def _view(buffer: Buffer, access: Access, arenas: Sequence[str]) -> Numbers:
    offset = buffer.offset + access.index * buffer.instance_bytes + access.start * buffer.pitch_bytes
    num_bytes = (access.end - access.start) * buffer.pitch_bytes
    yield from (num_bytes, arenas.index(buffer.pool), access.param, offset, buffer.instance_bytes)


def _is_external(section: Section) -> bool:
    return any(OP_KINDS[op.kind].external for op in section.make_ops())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("--without-wait", type=int)
    args = parser.parse_args()
    try:
        sys.stdout.write(replay_text(load_plan(args.plan), args.without_wait) + "\n")
    except IndexError:
        raise SystemExit(NO_SUCH_WAIT) from None


if __name__ == "__main__":
    main()
