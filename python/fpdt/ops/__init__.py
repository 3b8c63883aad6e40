"""Op handlers: one for every kind of the op table (src/schedule/op.ts) that is not external.

A handler gets the declared views, in the op table's order, and returns nothing. Tensors it makes die in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fpdt.ops import attend, embedding, exchange, loss, moves, projections

if TYPE_CHECKING:
    from fpdt.run.context import Handler

_HANDLERS: dict[str, Handler] = {
    "embed": embedding.embed,
    "zero": moves.zero,
    "pre": projections.pre,
    "preQ": projections.pre_q,
    "preKv": projections.pre_kv,
    "toHeads": exchange.to_heads,
    "toSequence": exchange.to_sequence,
    "attn": attend.attn,
    "mergeFirst": attend.merge_first,
    "merge": attend.merge,
    "cast": moves.cast,
    "post": projections.post,
    "postBwd": projections.post_bwd,
    "attnBwd": attend.attn_bwd,
    "preBwd": projections.pre_bwd,
    "loss": loss.loss,
    "embedBwd": embedding.embed_bwd,
    "emitGrads": embedding.emit_grads,
    "fetch": moves.move,
    "offload": moves.move,
}

# Autograd records only what a handler reruns for its own gradients, inside enable_grad.
HANDLERS: dict[str, Handler] = {kind: torch.no_grad()(handler) for kind, handler in _HANDLERS.items()}

__all__ = ["HANDLERS"]
