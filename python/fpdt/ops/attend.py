"""Partial attention, its online merge and its gradients."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from torch import Tensor

from fpdt.attention import Mask, merge_partial
from fpdt.plan import Mask as PlanMask
from fpdt.plan import Op

if TYPE_CHECKING:
    from fpdt.run.context import OpContext


def attn(ctx: OpContext, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor) -> None:
    """Attention of q over these k, v alone; final where the plan has no other."""
    result, result_lse = ctx.engine.kernels.attn.forward(q, k, v, ctx.layer.attention, *_mask(ctx.op), out=o)
    if result is not o:
        o.copy_(result)
    lse.copy_(result_lse)


def merge_first(ctx: OpContext, o_part: Tensor, lse_part: Tensor, o_acc: Tensor, lse: Tensor) -> None:
    o_acc.copy_(o_part)
    lse.copy_(lse_part)


def merge(ctx: OpContext, o_part: Tensor, lse_part: Tensor, o_acc: Tensor, lse: Tensor) -> None:
    merge_partial(o_acc, lse, o_part, lse_part)


def attn_bwd(
    ctx: OpContext,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    do: Tensor,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
) -> None:
    """o and lse are those over all keys."""
    backend = ctx.engine.kernels.attn_bwd
    grads = backend.backward(do, q, k, v, o, lse, ctx.layer.attention, *_mask(ctx.op))
    for total, grad in zip((dq, dk, dv), grads, strict=True):
        total.add_(grad)


def _mask(op: Op) -> tuple[Mask, int, int]:
    """The mask, and the global positions of the first query and of the first key."""
    mask = op.attribute.mask
    assert mask is not None and op.kv is not None  # checked when the plan was decoded
    return attention_mask(mask), op.tokens.start, op.kv.start


@lru_cache
def attention_mask(mask: PlanMask) -> Mask:
    return Mask(mask.kind, mask.window)
