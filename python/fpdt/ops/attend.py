"""Partial attention, its online merge and its gradients; where documents are packed, piece by piece."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from torch import Tensor

from fpdt.attention import Mask, merge_by_lerp, merge_partial
from fpdt.ops.documents import by_documents
from fpdt.plan import Mask as PlanMask
from fpdt.plan import Op

if TYPE_CHECKING:
    from fpdt.run.context import OpContext


def attn(ctx: OpContext, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor) -> None:
    """Attention of q over these k, v alone; final where the plan has no other."""
    mask, q_start, kv_start = _mask(ctx.op)
    if ctx.engine.documents is None:
        _attend(ctx, (q, k, v, o, lse), mask, q_start, kv_start)
        return
    seen = 0
    for rows, keys, piece in by_documents(ctx.op, ctx.engine.documents, mask):
        views = (q[rows], k[keys], v[keys], o[rows], lse[rows])
        _attend(ctx, views, piece.mask, piece.queries[0], piece.keys[0])
        seen = rows.stop
    if seen < o.shape[0]:
        o[seen:].zero_()
        lse[seen:].fill_(float("-inf"))


def merge_first(ctx: OpContext, o_part: Tensor, lse_part: Tensor, o_acc: Tensor, lse: Tensor) -> None:
    o_acc.copy_(o_part)
    lse.copy_(lse_part)


def merge(ctx: OpContext, o_part: Tensor, lse_part: Tensor, o_acc: Tensor, lse: Tensor) -> None:
    kernels = ctx.engine.kernels.fused
    if kernels.merge == "lerp":
        merge_by_lerp(o_acc, lse, o_part, lse_part, kernels.block_bytes)
    else:
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
    mask, q_start, kv_start = _mask(ctx.op)
    if ctx.engine.documents is None:
        _add_gradients(ctx, (do, q, k, v, o, lse), (dq, dk, dv), mask, q_start, kv_start)
        return
    for rows, keys, piece in by_documents(ctx.op, ctx.engine.documents, mask):
        views = (do[rows], q[rows], k[keys], v[keys], o[rows], lse[rows])
        totals = (dq[rows], dk[keys], dv[keys])
        _add_gradients(ctx, views, totals, piece.mask, piece.queries[0], piece.keys[0])


def _attend(ctx: OpContext, views: tuple[Tensor, ...], mask: Mask, q_start: int, kv_start: int) -> None:
    q, k, v, o, lse = views
    config = ctx.layer.attention
    result, result_lse = ctx.engine.kernels.attn.forward(q, k, v, config, mask, q_start, kv_start, out=o)
    if result is not o:
        o.copy_(result)
    lse.copy_(result_lse)


def _add_gradients(
    ctx: OpContext, views: tuple[Tensor, ...], totals: tuple[Tensor, ...], mask: Mask, q_start: int, kv_start: int
) -> None:
    do, q, k, v, o, lse = views
    backend = ctx.engine.kernels.attn_bwd
    grads = backend.backward(do, q, k, v, o, lse, ctx.layer.attention, mask, q_start, kv_start)
    for total, grad in zip(totals, grads, strict=True):
        total.add_(grad)


def _mask(op: Op) -> tuple[Mask, int, int]:
    """The mask, and the global positions of the first query and of the first key."""
    mask = op.attribute.mask
    assert mask is not None and op.kv is not None  # checked when the plan was decoded
    return attention_mask(mask), op.tokens.start, op.kv.start


@lru_cache
def attention_mask(mask: PlanMask) -> Mask:
    return Mask(mask.kind, mask.window)
