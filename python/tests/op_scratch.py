"""Runs the handler of one op on plain tensors, and measures what it makes inside, computes and moves."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from fpdt.measure.memory import LiveBytes
from fpdt.models import EngineBinding
from fpdt.ops import HANDLERS
from fpdt.plan import OP_KINDS, Attribute, Op, Range, Section
from fpdt.run.context import Frame, OpContext
from fpdt.run.runtime import Runtime
from tests.counted_work import Work
from tests.families import Built
from tests.handler_calls import Group


def op_views(model: Built, kind: str, rows: int) -> list[Tensor]:
    """Of a loss, or of a merge of as many heads as the model has."""
    table, tied = model.family.parameters, not model.family.code.lm_head.weights
    generator = torch.Generator().manual_seed(11)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    if kind == "merge":
        heads = (rows, len(model.family.head_map.query[0]))
        part = randn(*heads, model.head_dim).to(model.dtype)
        return [part, randn(*heads), randn(*heads, model.head_dim), randn(*heads)]
    x = randn(rows, model.width("x")).to(model.dtype)
    labels = torch.randint(0, int(model.family.config["vocab_size"]), (rows,), generator=generator)
    labels[::5] = -100
    if kind == "lossOnly":
        return [x, labels, torch.zeros(1)]
    head = model.region(table.num_head_elements)
    norm, own = head[: table.num_head_norm_elements], head[table.num_head_norm_elements :]
    weights = [torch.rand(rows, generator=generator)] if kind == "lossWeighted" else []
    lm_head = model.region(table.num_embed_elements) if tied else own
    return [x, labels, *weights, torch.empty_like(x), torch.zeros(1), norm, lm_head]


def run_op(engine: EngineBinding, kind: str, views: list[Tensor], tiles: int = 1) -> None:
    frame = Frame(cast(Runtime, Group(1).ranks()[0]))
    frame.engine = engine
    op = Op(cast(Section, None), 0, kind, OP_KINDS[kind].stream, Range(0, 0), None, Attribute(tiles=tiles), ())
    with torch.no_grad():
        HANDLERS[kind](OpContext(op, frame), *views)


def op_peak(engine: EngineBinding, kind: str, views: list[Tensor]) -> int:
    """Bytes of the tensors made inside, at their most."""
    with LiveBytes() as live, live.scope() as scope:
        run_op(engine, kind, views)
    return scope.peak_bytes


def op_work(engine: EngineBinding, kind: str, views: list[Tensor]) -> Work:
    work = Work()
    with work:
        run_op(engine, kind, views)
    return work
