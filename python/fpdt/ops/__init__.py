"""Op handlers: one for every kind of the op table that is not external.

`handler(ctx, *views)` gets the declared views by the names of the op table and returns nothing. Tensors it makes die in
it. Handlers run without grad: autograd records only what one reruns for its own gradients, inside enable_grad.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

from fpdt.errors import PlanError
from fpdt.ops import attend, batch, embedding, exchange, loss, moves, projections
from fpdt.plan.op_kinds import OP_KINDS, OpKind

if TYPE_CHECKING:
    from fpdt.run.context import Handler, Handlers

__all__ = ["HANDLERS", "check_handlers", "view_names"]

GROUPS = ("reads", "writes", "accumulates")


def view_names(kind: OpKind) -> tuple[str, ...]:
    """Parameters of a kind's handler after `ctx`: oPart is o_part; `many` views are one tuple, named by the group."""
    names: list[str] = []
    for group, views in zip(GROUPS, kind.groups, strict=True):
        names += [group] if views == "many" else [re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", view) for view in views]
    return tuple(names)


def check_handlers(handlers: Handlers) -> None:
    """Raises PlanError for a kind without a handler, and for a handler whose parameters are not its kind's views."""
    for kind in OP_KINDS.values():
        if kind.external:
            continue
        if kind.name not in handlers:
            raise PlanError(f"op kind {kind.name} has no handler", "add one to fpdt/ops")
        expected, found = ("ctx", *view_names(kind)), tuple(inspect.signature(handlers[kind.name]).parameters)
        if found != expected:
            raise PlanError(f"the handler of {kind.name} takes {', '.join(found)}, its views are {', '.join(expected)}")


HANDLERS: dict[str, Handler] = {
    "loadBatch": batch.load_batch,
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
    "postKeep": projections.post_keep,
    "postBwd": projections.post_bwd,
    "postBwdKept": projections.post_bwd_kept,
    "attnBwd": attend.attn_bwd,
    "preBwd": projections.pre_bwd,
    "loss": loss.loss,
    "lossWeighted": loss.loss_weighted,
    "lossOnly": loss.loss_only,
    "rescale": moves.rescale,
    "embedBwd": embedding.embed_bwd,
    "emitGrads": embedding.emit_grads,
    "copy": moves.copy,
}

check_handlers(HANDLERS)
