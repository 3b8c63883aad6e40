"""pre and post of a decoder layer, and their gradients.

The *_bwd handlers know no model: they rerun the family's function under autograd and take the gradients of its inputs
and of the trainable weights that the binding lists. All of them work by row tiles where the op says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fpdt.ops.tiles import by_tiles
from fpdt.run.parameters import WeightSlice, accumulate

if TYPE_CHECKING:
    from fpdt.run.context import OpContext


def pre(ctx: OpContext, x: Tensor, positions: Tensor, q: Tensor, k: Tensor, v: Tensor) -> None:
    layer = ctx.layer

    def work(x: Tensor, positions: Tensor, *out: Tensor) -> None:
        _write(out, layer.family.pre(layer, x, positions))

    by_tiles(ctx, work, x, positions, q, k, v)


def pre_q(ctx: OpContext, x: Tensor, positions: Tensor, q: Tensor) -> None:
    layer = ctx.layer

    def work(x: Tensor, positions: Tensor, q: Tensor) -> None:
        q.copy_(layer.family.pre_q(layer, x, positions))

    by_tiles(ctx, work, x, positions, q)


def pre_kv(ctx: OpContext, x: Tensor, positions: Tensor, k: Tensor, v: Tensor) -> None:
    layer = ctx.layer

    def work(x: Tensor, positions: Tensor, *out: Tensor) -> None:
        _write(out, layer.family.pre_kv(layer, x, positions))

    by_tiles(ctx, work, x, positions, k, v)


def post(ctx: OpContext, x: Tensor, o: Tensor, y: Tensor) -> None:
    layer = ctx.layer

    def work(x: Tensor, o: Tensor, y: Tensor) -> None:
        y.copy_(layer.family.post(layer, x, o))

    by_tiles(ctx, work, x, o, y)


def post_bwd(ctx: OpContext, x: Tensor, o: Tensor, do: Tensor, dx: Tensor, wgrad: Tensor) -> None:
    """dx holds dL/dy on entry and dL/dx of post on return; pre_bwd adds the rest."""
    layer = ctx.layer

    def work(x: Tensor, o: Tensor, do: Tensor, dx: Tensor) -> None:
        leaves = _leaves(x, o)
        with torch.enable_grad():
            y = layer.family.post(layer, *leaves)
        grad_x, grad_o = _gradients([y], [dx], leaves, layer.post_weights, wgrad)
        dx.copy_(grad_x)
        do.copy_(grad_o)

    by_tiles(ctx, work, x, o, do, dx)


def pre_bwd(
    ctx: OpContext, x: Tensor, positions: Tensor, dq: Tensor, dk: Tensor, dv: Tensor, dx: Tensor, wgrad: Tensor
) -> None:
    layer = ctx.layer

    def work(x: Tensor, positions: Tensor, dq: Tensor, dk: Tensor, dv: Tensor, dx: Tensor) -> None:
        (leaf,) = _leaves(x)
        with torch.enable_grad():
            outputs = layer.family.pre(layer, leaf, positions)
        (grad_x,) = _gradients(outputs, (dq, dk, dv), [leaf], layer.pre_weights, wgrad)
        dx.add_(grad_x)

    by_tiles(ctx, work, x, positions, dq, dk, dv, dx)


def _write(views: Sequence[Tensor], results: Sequence[Tensor]) -> None:
    for view, result in zip(views, results, strict=True):
        view.copy_(result)


def _leaves(*views: Tensor) -> list[Tensor]:
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
