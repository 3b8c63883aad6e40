"""The kernel `inplace` of cross entropy: logits in the model dtype become their gradients.

Rows go through fp32 block by block, so that beside logits and hidden states little is made. Twin of
src/catalog/ops/lossInPlace.ts, which counts the bytes of every tensor that is made here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from fpdt.blocks import blocks
from fpdt.models.fused import add_product

if TYPE_CHECKING:
    from fpdt.models.base import EngineBinding

IGNORED_LABEL = -100


def through_head_in_place(
    engine: EngineBinding, hidden: Tensor, labels: Tensor, weights: Tensor | None, loss_sum: Tensor, wgrad: Tensor
) -> Tensor:
    """The gradient of `hidden`; adds those of lm_head's weights, and the sum of token losses."""
    head = engine.head
    logits = _bent_logits(engine, hidden)
    token_losses = cross_entropy_in_place(
        logits, labels, engine.loss_factor, weights, head.softcap, engine.kernels.fused.block_bytes
    )
    if engine.watch_losses is not None:
        engine.watch_losses(token_losses, labels)
    loss_sum.add_(token_losses.sum())
    del token_losses
    if head.scale != 1:
        logits.mul_(head.scale)
    dhidden = logits @ head.weight
    add_head_gradients(engine, wgrad, logits, hidden)
    return dhidden


def add_loss_only_in_place(engine: EngineBinding, x: Tensor, labels: Tensor, loss_sum: Tensor) -> None:
    """Adds the sum of token losses, and forms no gradient."""
    logits = _bent_logits(engine, engine.head.norm.run({"@x": x})["@y"])
    ignored, targets, picked, totals = _rows(logits, labels)
    for rows in _blocks(logits, engine.kernels.fused.block_bytes):
        _exponentials(logits[rows], targets[rows], picked[rows], totals[rows], engine.head.softcap)
    loss_sum.add_(totals.log_().sub_(picked).masked_fill_(ignored, 0).sum())


def add_head_gradients(engine: EngineBinding, wgrad: Tensor, dlogits: Tensor, hidden: Tensor) -> None:
    """dlogits^T @ hidden, and of a bias the sum over the rows, to their places in `wgrad`."""
    for weight in engine.lm_head_weights:
        if weight.parameter is engine.head.bias:
            weight.view(wgrad).add_(dlogits.sum(dim=0))
        else:
            add_product(weight.view(wgrad), dlogits.t(), hidden, engine.kernels.fused)


def cross_entropy_in_place(
    logits: Tensor, labels: Tensor, factor: float, weights: Tensor | None, softcap: float | None, block_bytes: int
) -> Tensor:
    """Token losses [rows] in fp32 (fp64 for fp64); `logits` [rows, vocab] become their gradients times `factor`.

    Both times `weights` [rows], finite, where they are given. Rows whose label is -100 have neither. With a softcap
    `logits` are its tanh, and the gradients those of what it bends.
    """
    ignored, targets, picked, totals = _rows(logits, labels)
    share = torch.full_like(picked, factor).masked_fill_(ignored, 0)
    if weights is not None:
        share.mul_(weights)
    minus = share.neg()
    for rows in _blocks(logits, block_bytes):
        numbers = (picked[rows], totals[rows], share[rows], minus[rows])
        _form_gradients(logits[rows], targets[rows], *numbers, softcap)
    losses = totals.log_().sub_(picked).masked_fill_(ignored, 0)
    return losses if weights is None else losses.mul_(weights)


def _bent_logits(engine: EngineBinding, hidden: Tensor) -> Tensor:
    """[rows, vocab] in the model dtype; of a softcap the tanh, which is still to be multiplied by it."""
    head = engine.head
    logits = functional.linear(hidden, head.weight, head.bias)
    if head.scale != 1:
        logits.mul_(head.scale)
    return logits if head.softcap is None else logits.div_(head.softcap).tanh_()


def _rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which rows are ignored, their targets [rows, 1], and room for the target's number and that of all in each."""
    ignored = labels == IGNORED_LABEL
    targets = labels.masked_fill(ignored, 0)[:, None]
    picked = torch.empty(labels.shape, dtype=_wide(logits.dtype), device=logits.device)
    return ignored, targets, picked, torch.empty_like(picked)


def _blocks(logits: Tensor, block_bytes: int) -> list[slice]:
    rows, vocab = logits.shape
    return list(blocks(rows, vocab * _wide(logits.dtype).itemsize, block_bytes))


def _form_gradients(
    logits: Tensor,
    targets: Tensor,
    picked: Tensor,
    totals: Tensor,
    share: Tensor,
    minus: Tensor,
    softcap: float | None,
) -> None:
    """Of a row (p - its target's 1) * share; uses up `share`. `minus` is -share."""
    scores = _exponentials(logits, targets, picked, totals, softcap)
    scores.mul_(share.div_(totals)[:, None]).scatter_add_(1, targets, minus[:, None])
    if softcap is not None:
        logits.square_().neg_().add_(1).mul_(scores.to(logits.dtype))
    elif scores.dtype != logits.dtype:
        logits.copy_(scores)


def _exponentials(logits: Tensor, targets: Tensor, picked: Tensor, totals: Tensor, softcap: float | None) -> Tensor:
    """exp(score - the row's largest) [rows, vocab], their sums, and of the targets the exponent.

    Of logits in fp32 without a softcap in their own memory.
    """
    wide = _wide(logits.dtype)
    scores = logits.to(wide) if softcap is None else logits.to(wide, copy=True).mul_(softcap)
    scores.sub_(scores.amax(-1, keepdim=True))
    torch.gather(scores, 1, targets, out=picked[:, None])
    torch.sum(scores.exp_(), dim=-1, out=totals)
    return scores


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
