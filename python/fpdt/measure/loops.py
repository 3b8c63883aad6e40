"""Calls that no plan has, run by the device's own loop: for what is measured apart from a model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

from fpdt.run.context import Frame, Handler
from fpdt.run.link import LinkedSection
from fpdt.run.runtime import LinkedCall, Runtime

LoopOp = tuple[Handler, tuple[Any, ...], int]
"""A handler, its views, and the place of its stream. No op waits for another."""


_NUMBERS = itertools.count()


def linked_loop(runtime: Runtime, ops: Sequence[LoopOp]) -> Callable[[], None]:
    """Runs the ops as a call of a section is run, each on its stream."""
    num_ops, streams = len(ops), [stream for _, _, stream in ops]
    # A device keeps events by the name of a section.
    columns = SimpleNamespace(name=f"loop {next(_NUMBERS)}", num_ops=num_ops, waits=lambda op: ())
    section = LinkedSection(cast(Any, columns), Frame(runtime))
    section.handlers = [handler for handler, _, _ in ops]
    section.contexts = [_context(op, runtime.streams[stream], section) for op, stream in enumerate(streams)]
    section.views = [views for _, views, _ in ops]
    section.kinds = [0] * num_ops
    section.streams = streams
    section.gates = [None] * num_ops
    section.kind_counts = [(0, num_ops)]
    section.first_ops = [streams.index(place) if place in streams else -1 for place in range(len(runtime.streams))]
    call = LinkedCall(section, (), None, tuple(0 for _ in runtime.streams))
    bound = cast(Any, SimpleNamespace(engine=None, layers=()))
    recorder = runtime.make_recorder(("loop",), 0)
    recorder.begin_step()
    return lambda: runtime.run_call(call, bound, recorder)


def _context(op: int, stream: str, section: LinkedSection) -> Any:
    return SimpleNamespace(op=SimpleNamespace(id=op, stream=stream), frame=section.frame, describe=lambda: f"op {op}")
