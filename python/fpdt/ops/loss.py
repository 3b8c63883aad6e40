"""Cross entropy of the final hidden states of some tokens, with its gradients, in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from fpdt.ops.loss_in_place import (
    IGNORED_LABEL,
    add_head_gradients,
    add_loss_only_in_place,
    through_head_in_place,
)
from fpdt.ops.tiles import by_tiles

if TYPE_CHECKING:
    from fpdt.models.base import EngineBinding
    from fpdt.run.context import OpContext


def loss(
    ctx: OpContext, x: Tensor, labels: Tensor, dx: Tensor, loss_sum: Tensor, wgrad: Tensor, wgrad_lm_head: Tensor
) -> None:
    """Adds the sum of token losses to lossSum; dx and the weight gradients are times `loss_factor`.

    `wgrad` is the final norm's region, `wgrad_lm_head` that of lm_head, or of the embedding it is tied to. The weights'
    own modules are not called: inside lm_head's forward ZeRO's hooks have gathered both weights already.
    """

    def work(x: Tensor, labels: Tensor, dx: Tensor) -> None:
        _add_loss(ctx.engine, x, labels, None, dx, loss_sum, wgrad, wgrad_lm_head)

    by_tiles(ctx, work, x, labels, dx)


def loss_weighted(
    ctx: OpContext,
    x: Tensor,
    labels: Tensor,
    weights: Tensor,
    dx: Tensor,
    loss_sum: Tensor,
    wgrad: Tensor,
    wgrad_lm_head: Tensor,
) -> None:
    """The same, each token's loss times its weight, fp32 [rows]."""

    def work(x: Tensor, labels: Tensor, weights: Tensor, dx: Tensor) -> None:
        _add_loss(ctx.engine, x, labels, weights, dx, loss_sum, wgrad, wgrad_lm_head)

    by_tiles(ctx, work, x, labels, weights, dx)


def loss_only(ctx: OpContext, x: Tensor, labels: Tensor, loss_sum: Tensor) -> None:
    """Adds the sum of token losses to lossSum, and forms no gradient; see `loss` for the weights."""
    add = add_loss_only_in_place if ctx.engine.kernels.fused.loss == "inplace" else _add_loss_only

    def work(x: Tensor, labels: Tensor) -> None:
        add(ctx.engine, x, labels, loss_sum)

    by_tiles(ctx, work, x, labels)


def _add_loss_only(engine: EngineBinding, x: Tensor, labels: Tensor, loss_sum: Tensor) -> None:
    valid = labels != IGNORED_LABEL
    targets = labels.masked_fill(~valid, 0)[:, None]
    scores = _scores(engine, x)
    losses = scores.logsumexp(dim=-1, keepdim=True).sub_(scores.gather(1, targets))
    loss_sum.add_(losses.squeeze(1).masked_fill(~valid, 0).sum())


def _scores(engine: EngineBinding, x: Tensor) -> Tensor:
    """Logits [rows, vocab] in fp32, or in fp64 for fp64."""
    head = engine.head
    logits = functional.linear(head.norm.run({"@x": x})["@y"], head.weight, head.bias)
    if head.scale != 1:
        logits.mul_(head.scale)
    if head.softcap is not None:
        logits.div_(head.softcap).tanh_().mul_(head.softcap)
    return logits if logits.dtype == torch.float64 else logits.float()


def _add_loss(
    engine: EngineBinding,
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    dx: Tensor,
    loss_sum: Tensor,
    wgrad: Tensor,
    wgrad_lm_head: Tensor,
) -> None:
    hidden = engine.head.norm.run({"@x": x})["@y"]
    if engine.kernels.fused.loss == "inplace":
        dhidden = through_head_in_place(engine, hidden, labels, weights, loss_sum, wgrad_lm_head)
    else:
        token_losses, dhidden = _through_head(engine, hidden, labels, weights, wgrad_lm_head)
        loss_sum.add_(token_losses.sum())
    del hidden
    engine.head.norm_bwd.run({"@x": x, "@dy": dhidden, "@dx": dx, "wgrad": wgrad})


def _through_head(
    engine: EngineBinding, hidden: Tensor, labels: Tensor, weights: Tensor | None, wgrad: Tensor
) -> tuple[Tensor, Tensor]:
    """Token losses [rows], and the gradient of `hidden`; adds those of lm_head's weights."""
    head = engine.head
    logits = functional.linear(hidden, head.weight, head.bias)
    if head.scale != 1:
        logits.mul_(head.scale)
    bent = None
    if head.softcap is not None:
        bent = logits.div_(head.softcap).tanh_()
        logits = bent * head.softcap
    token_losses, dlogits = cross_entropy(logits, labels, engine.loss_factor, weights)
    if engine.watch_losses is not None:
        engine.watch_losses(token_losses, labels)
    del logits
    if bent is not None:
        dlogits.mul_(1 - bent.square_())
        del bent
    if head.scale != 1:
        dlogits.mul_(head.scale)
    dhidden = dlogits @ head.weight
    add_head_gradients(engine, wgrad, dlogits, hidden)
    return token_losses, dhidden


def cross_entropy(
    logits: Tensor, labels: Tensor, factor: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Token losses [rows] in fp32 (fp64 for fp64), and their gradients times `factor` [rows, vocab] in logits' dtype.

    Both times `weights` [rows], finite, where they are given. Rows whose label is -100 have neither. `logits` is used
    up: where no cast is needed it becomes the gradient.
    """
    scores = logits if logits.dtype == torch.float64 else logits.float()
    valid = labels != IGNORED_LABEL
    targets = labels.masked_fill(~valid, 0)[:, None]
    lse = torch.logsumexp(scores, dim=-1, keepdim=True)
    losses = (lse - scores.gather(1, targets)).squeeze(1).masked_fill(~valid, 0)
    share = valid.to(scores.dtype)
    if weights is not None:
        share.mul_(weights)
        losses.mul_(weights)
    scale = share[:, None] * factor
    gradients = scores.sub_(lse).exp_().mul_(scale).scatter_add_(1, targets, -scale)
    return losses, gradients.to(logits.dtype)
