"""Partial attention, its online merge and its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fpdt.attention import AttentionError, merge_partial

if TYPE_CHECKING:
    from fpdt.run.context import OpContext


def attn(ctx: OpContext) -> None:
    (q, k, v), (o_part, lse_part) = ctx.reads, ctx.writes
    config = ctx.bound.layers[ctx.op.layer_slot].attention
    o, lse = ctx.bound.extra.attention.forward(q, k, v, config, _causal(ctx))
    o_part.copy_(o)
    lse_part.copy_(lse)


def merge_first(ctx: OpContext) -> None:
    for read, write in zip(ctx.reads, ctx.writes, strict=True):
        write.copy_(read)


def merge(ctx: OpContext) -> None:
    (o_part, lse_part), (o_acc, lse) = ctx.reads, ctx.accumulates
    merge_partial(o_acc, lse, o_part, lse_part)


def attn_bwd(ctx: OpContext) -> None:
    q, k, v, o, lse, do = ctx.reads
    config = ctx.bound.layers[ctx.op.layer_slot].attention
    grads = ctx.bound.extra.attention.backward(do, q, k, v, o, lse, config, _causal(ctx))
    for total, grad in zip(ctx.accumulates, grads, strict=True):
        total.add_(grad)


def _causal(ctx: OpContext) -> bool:
    """Keys before the queries are seen by all of them; a range that reaches into them is the causal diagonal."""
    tokens, kv = ctx.op.tokens, ctx.op.kv
    if kv is None:
        raise AttentionError(f"op {ctx.op.id} ({ctx.op.kind}) has no kv range")
    if kv.end <= tokens.start:
        return False
    if kv != tokens:
        raise AttentionError(f"op {ctx.op.id} ({ctx.op.kind}): kv {kv} must end before tokens {tokens} or equal them")
    return True
