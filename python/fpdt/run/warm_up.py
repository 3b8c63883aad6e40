"""Every kind of op run once before the arenas: its kernels are loaded by then, and tuned for its shapes.

What that takes of a device (code, workspaces of libraries) stays, and is not PyTorch's. Later, arenas have the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import cast

import deepspeed
import numpy as np
import torch
from torch import Tensor

from fpdt.devices import foreign_bytes, free_cache
from fpdt.ops import HANDLERS
from fpdt.plan import OP_KINDS, Access, Op, Plan, Section
from fpdt.run.arena import TORCH_DTYPES
from fpdt.run.context import Frame, OpContext
from fpdt.run.runtime import Runtime
from fpdt.run.stream import StreamedModel
from fpdt.run.zero import LayerWeights

ELSEWHERE = frozenset({"attn", "attnBwd", "loadBatch", "emitGrads"})
"""Attention kernels are run by their own test (attention.self_test); the other two have no kernels."""
KINDS = frozenset(kind.name for kind in OP_KINDS.values() if kind.stream == "compute" and not kind.external) - ELSEWHERE


def warm_up_ops(plan: Plan, streamed: StreamedModel, device: torch.device) -> int | None:
    """Runs one op of every kind, class of layers and attribute on rows of zeros; a collective where ZeRO-3 shards.

    Weights stay as they are. Returns the bytes of the device that it took beside what PyTorch allocates; None where the
    device cannot tell.
    """
    before = foreign_bytes(device)
    weights = LayerWeights(streamed.model, streamed.modules, plan.deepspeed)
    by_class = dict[int | None, dict[tuple[str, int], Op]]()
    layers = dict[int | None, int | None]()
    for section, layer in _first_calls(plan):
        number = None if layer is None else plan.code.class_of[layer]
        layers.setdefault(number, layer)
        by_class[number] = {**_first_ops(section), **by_class.get(number, {})}
    for number, layer in layers.items():
        with torch.no_grad(), _whole_weights(streamed, weights, layer):
            for op in by_class[number].values():
                _run(op, plan, streamed, layer, device)
    free_cache(device)
    after = foreign_bytes(device)
    return None if before is None or after is None else max(0, after - before)


def _first_calls(plan: Plan) -> Iterator[tuple[Section, int | None]]:
    """Every section with the layer of its first call."""
    called = dict[str, int | None]()
    for turn in plan.turns:
        for call in turn.calls:
            if call.owner == "plan":
                called.setdefault(call.section, call.layer)
    return ((plan.sections[name], layer) for name, layer in called.items())


def _first_ops(section: Section) -> dict[tuple[str, int], Op]:
    """The first op of each kind and attribute, by both."""
    columns, rows = section.columns, section.rows
    pairs = np.stack([columns.kind[rows], columns.attribute[rows]], axis=1)
    firsts = set(np.unique(pairs, axis=0, return_index=True)[1].tolist())
    ops = (op for op in islice(section.make_ops(), max(firsts, default=-1) + 1) if op.id in firsts)
    return {(op.kind, int(pairs[op.id, 1])): op for op in ops if op.kind in KINDS}


@contextmanager
def _whole_weights(streamed: StreamedModel, weights: LayerWeights, layer: int | None) -> Iterator[None]:
    """Of a layer, or of what comes before and after all layers."""
    if layer is None:
        in_layers = {id(weight) for module in streamed.modules for weight in module.parameters()}
        ends = [weight for weight in streamed.model.parameters() if id(weight) not in in_layers]
        with deepspeed.zero.GatheredParameters(ends):
            yield
        return
    weights.gather(layer)
    weights.acquire(layer)
    try:
        yield
    finally:
        weights.release(layer)


def _run(op: Op, plan: Plan, streamed: StreamedModel, layer: int | None, device: torch.device) -> None:
    # There is no runtime yet, and no op of KINDS asks for one.
    frame = Frame(cast(Runtime, None))
    frame.engine, frame.layer_number = streamed.extra, layer
    frame.layer = None if layer is None else streamed.layers[layer]
    arguments: list[Tensor | tuple[Tensor, ...]] = []
    for views, accesses in zip(OP_KINDS[op.kind].groups, op.section.groups(op.id), strict=True):
        tensors = tuple(_zeros(plan, access, device) for access in accesses)
        arguments += [tensors] if views == "many" else tensors
    HANDLERS[op.kind](OpContext(op, frame), *arguments)


def _zeros(plan: Plan, access: Access, device: torch.device) -> Tensor:
    buffer = plan.buffers[access.buffer]
    shape = (access.end - access.start, *buffer.shape[1:])
    return torch.zeros(shape, dtype=TORCH_DTYPES[buffer.dtype], device=device)
