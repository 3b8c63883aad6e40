"""Calls of made-up sections: ops that a handler, a stream and waits are all there is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

from fpdt.run.context import Frame
from fpdt.run.link import LinkedSection
from fpdt.run.runtime import LinkedCall, Runtime

MadeUpOp = tuple[Callable[[Any], None], int, tuple[int, ...]]
"""A handler, the place of its stream, and the ops that it waits for."""


def made_up_call(runtime: Runtime, ops: Sequence[MadeUpOp], masks: tuple[int, ...]) -> Callable[[], None]:
    """Runs the ops as one call with an entry mask."""
    streams, num_ops = [place for _, place, _ in ops], len(ops)
    section: Any = SimpleNamespace(name="made up", num_ops=num_ops, first=0, waits=lambda op: ops[op][2])
    section.columns = SimpleNamespace(stream=streams)
    linked = LinkedSection(section, Frame(runtime))
    linked.handlers = [handler for handler, _, _ in ops]
    linked.contexts = [_context(runtime, linked, op, *ops[op]) for op in range(num_ops)]
    linked.views, linked.kinds, linked.streams = [()] * num_ops, [0] * num_ops, streams
    linked.gates = [None] * num_ops
    linked.kind_counts = [(0, num_ops)]
    linked.first_ops = [streams.index(place) if place in streams else -1 for place in range(len(runtime.streams))]
    recorder = runtime.make_recorder(("made up",), 0)
    call = LinkedCall(linked, (), None, masks)
    return lambda: runtime.run_call(call, cast(Any, SimpleNamespace(engine=None, layers=())), recorder)


def _context(runtime: Runtime, linked: LinkedSection, op: int, handler: Any, place: int, waits: tuple[int, ...]) -> Any:
    mine = SimpleNamespace(id=op, stream=runtime.streams[place], section=linked.section, waits=waits)
    return SimpleNamespace(op=mine, frame=linked.frame, describe=lambda: f"op {op}")
