"""Attention written out in plain torch: every backend is tested against it. Memory is rows * kvRows * heads."""

from __future__ import annotations

import torch
from torch import Tensor

from fpdt.attention.base import AttentionConfig, Mask, MaskName, check_call
from fpdt.attention.merge import finite


class ReferenceAttention:
    """Computes in fp64 for fp64 inputs and in fp32 for all others. Has every mask, and softcaps."""

    name = "reference"
    masks: frozenset[MaskName] = frozenset({"full", "square", "rectangle", "window"})
    softcap = True

    def require(self, device: torch.device) -> None:
        """Plain torch runs everywhere."""

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        config: AttentionConfig,
        mask: Mask,
        q_start: int,
        kv_start: int,
        *,
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        check_call(self, q, k, config, mask, q_start, kv_start)
        scores = _scores(q, k, config, mask, q_start, kv_start)
        lse = torch.logsumexp(scores, dim=-1)
        values = _expand(v, q.shape[1]).to(scores.dtype)
        o = torch.einsum("hqk,khd->qhd", torch.exp(scores - finite(lse)[..., None]), values)
        return o.to(q.dtype), lse.transpose(0, 1)

    def backward(
        self,
        do: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        o: Tensor,
        lse: Tensor,
        config: AttentionConfig,
        mask: Mask,
        q_start: int,
        kv_start: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        check_call(self, q, k, config, mask, q_start, kv_start)
        scores = _scores(q, k, config, mask, q_start, kv_start)
        dtype, heads, kv_heads = scores.dtype, q.shape[1], k.shape[1]
        probabilities = torch.exp(scores - finite(lse.to(dtype)).transpose(0, 1)[..., None])
        do, o = do.to(dtype), o.to(dtype)
        delta = (do * o).sum(dim=-1).transpose(0, 1)[..., None]
        dv = torch.einsum("hqk,qhd->khd", probabilities, do)
        dp = torch.einsum("qhd,khd->hqk", do, _expand(v, heads).to(dtype))
        ds = probabilities * (dp - delta) * config.scale
        if config.softcap is not None:
            # Of a masked score, which is infinite, no slope.
            ds *= scores.div(config.softcap).square_().neg_().add_(1).clamp_(min=0)
        dq = torch.einsum("hqk,khd->qhd", ds, _expand(k, heads).to(dtype))
        dk = torch.einsum("hqk,qhd->khd", ds, q.to(dtype))
        return dq.to(q.dtype), _fold(dk, kv_heads).to(k.dtype), _fold(dv, kv_heads).to(v.dtype)


def _scores(q: Tensor, k: Tensor, config: AttentionConfig, mask: Mask, q_start: int, kv_start: int) -> Tensor:
    """[heads, rows, kvRows], masked by -inf."""
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    scores = torch.einsum("qhd,khd->hqk", q.to(dtype), _expand(k, q.shape[1]).to(dtype)) * config.scale
    if config.softcap is not None:
        scores.div_(config.softcap).tanh_().mul_(config.softcap)
    if mask.kind == "full":
        return scores
    queries = torch.arange(q_start, q_start + q.shape[0], device=q.device)[:, None]
    keys = torch.arange(kv_start, kv_start + k.shape[0], device=q.device)
    hidden = keys > queries
    if mask.window is not None:
        hidden |= queries - keys >= mask.window
    return scores.masked_fill(hidden, float("-inf"))


def _expand(x: Tensor, heads: int) -> Tensor:
    """[rows, kvHeads, d] -> [rows, heads, d], each key/value head repeated for its group of query heads."""
    return x.repeat_interleave(heads // x.shape[1], dim=1)


def _fold(x: Tensor, kv_heads: int) -> Tensor:
    """The adjoint of _expand: sums each group of heads."""
    return x.view(x.shape[0], kv_heads, -1, x.shape[2]).sum(dim=2)
