"""pre and post of a decoder layer, and their gradients.

The *_bwd handlers know no model: they rerun the family's function under autograd and take the gradients of its inputs
and of the trainable weights that the binding lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fpdt.run.parameters import WeightSlice, accumulate

if TYPE_CHECKING:
    from fpdt.models.base import LayerBinding
    from fpdt.run.context import OpContext


def pre(ctx: OpContext) -> None:
    layer, (x, positions) = _layer(ctx), ctx.reads
    _write(ctx.writes, layer.family.pre(layer, x, positions))


def pre_q(ctx: OpContext) -> None:
    layer, (x, positions) = _layer(ctx), ctx.reads
    _write(ctx.writes, (layer.family.pre_q(layer, x, positions),))


def pre_kv(ctx: OpContext) -> None:
    layer, (x, positions) = _layer(ctx), ctx.reads
    _write(ctx.writes, layer.family.pre_kv(layer, x, positions))


def post(ctx: OpContext) -> None:
    layer, (x, o) = _layer(ctx), ctx.reads
    _write(ctx.writes, (layer.family.post(layer, x, o),))


def post_bwd(ctx: OpContext) -> None:
    """dx holds dL/dy on entry and dL/dx of post on return; pre_bwd adds the rest."""
    layer, (do,), (dx, wgrad) = _layer(ctx), ctx.writes, ctx.accumulates
    x, o = _leaves(ctx.reads)
    with torch.enable_grad():
        y = layer.family.post(layer, x, o)
    grad_x, grad_o = _gradients([y], [dx], [x, o], layer.post_weights, wgrad)
    dx.copy_(grad_x)
    do.copy_(grad_o)


def pre_bwd(ctx: OpContext) -> None:
    layer, (dx, wgrad) = _layer(ctx), ctx.accumulates
    x_read, positions, *upstream = ctx.reads
    (x,) = _leaves([x_read])
    with torch.enable_grad():
        outputs = layer.family.pre(layer, x, positions)
    (grad_x,) = _gradients(outputs, upstream, [x], layer.pre_weights, wgrad)
    dx.add_(grad_x)


def _layer(ctx: OpContext) -> LayerBinding:
    return ctx.bound.layers[ctx.op.layer_slot]


def _write(views: Sequence[Tensor], results: Sequence[Tensor]) -> None:
    for view, result in zip(views, results, strict=True):
        view.copy_(result)


def _leaves(views: Sequence[Tensor]) -> list[Tensor]:
    return [view.detach().requires_grad_() for view in views]


def _gradients(
    outputs: Sequence[Tensor],
    upstream: Sequence[Tensor],
    inputs: Sequence[Tensor],
    weights: Sequence[WeightSlice],
    wgrad: Tensor,
) -> Sequence[Tensor]:
    """Gradients of the inputs; those of the weights are added into wgrad."""
    grads = torch.autograd.grad(
        outputs,
        [*inputs, *(weight.parameter for weight in weights)],
        [grad.to(output.dtype) for grad, output in zip(upstream, outputs, strict=True)],
    )
    accumulate(weights, wgrad, grads[len(inputs) :])
    return grads[: len(inputs)]
