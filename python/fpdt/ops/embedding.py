"""The embedding, its gradient, and the hand-over of weight gradients to autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from fpdt.run.context import OpContext


def embed(ctx: OpContext) -> None:
    (token_ids,), (x,) = ctx.reads, ctx.writes
    x.copy_(functional.embedding(token_ids, ctx.bound.extra.embed.weight))


def embed_bwd(ctx: OpContext) -> None:
    """Scatter-adds in fp32. As in torch, the row of padding_idx gets no gradient from the embedding."""
    (dx, token_ids), (wgrad,) = ctx.reads, ctx.accumulates
    extra = ctx.bound.extra
    rows = dx.float()
    if extra.embed.padding_idx is not None:
        rows = rows.masked_fill((token_ids == extra.embed.padding_idx)[:, None], 0)
    for weight in extra.embed_weights:
        weight.view(wgrad).index_add_(0, token_ids, rows)


def emit_grads(ctx: OpContext) -> None:
    (wgrad,) = ctx.reads
    ctx.bound.extra.emit(ctx.op.layer_slot, wgrad)
