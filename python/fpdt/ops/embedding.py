"""The embedding, its gradient, and the hand-over of weight gradients to autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from fpdt.run.context import OpContext


def embed(ctx: OpContext, token_ids: Tensor, x: Tensor) -> None:
    x.copy_(functional.embedding(token_ids, ctx.engine.embed.weight))


def embed_bwd(ctx: OpContext, dx: Tensor, token_ids: Tensor, wgrad: Tensor) -> None:
    """Scatter-adds in fp32. As in torch, the row of padding_idx gets no gradient from the embedding."""
    engine = ctx.engine
    rows = dx.float()
    if engine.embed.padding_idx is not None:
        rows = rows.masked_fill((token_ids == engine.embed.padding_idx)[:, None], 0)
    for weight in engine.embed_weights:
        weight.view(wgrad).index_add_(0, token_ids, rows)


def emit_grads(ctx: OpContext, wgrad: Tensor) -> None:
    ctx.engine.emit(wgrad)
