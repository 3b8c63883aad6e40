"""The embedding, its gradient, and the hand-over of weight gradients to autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from fpdt.run.context import OpContext


def embed(ctx: OpContext, token_ids: Tensor, positions: Tensor, x: Tensor) -> None:
    ctx.engine.embed.run({"@tokenIds": token_ids, "@positions": positions, "@x": x})


def embed_bwd(ctx: OpContext, dx: Tensor, token_ids: Tensor, positions: Tensor, wgrad: Tensor) -> None:
    ctx.engine.embed_bwd.run({"@tokenIds": token_ids, "@positions": positions, "@dx": dx, "wgrad": wgrad})


def emit_grads(ctx: OpContext, wgrad: Tensor) -> None:
    ctx.engine.emit(wgrad)
