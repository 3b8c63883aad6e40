"""Online merge of two partial attention results (FlashAttention's rescaling, arXiv 2205.14135)."""

from __future__ import annotations

import torch
from torch import Tensor


def merge_partial(o_total: Tensor, lse_total: Tensor, o_part: Tensor, lse_part: Tensor) -> None:
    """Adds a partial result into (o_total fp32 [rows, heads, d], lse_total fp32 [rows, heads]) in place.

    logaddexp, because log1p(exp(x)) overflows for x > 88.
    """
    lse = torch.logaddexp(lse_total, lse_part)
    o_total.mul_(torch.exp(lse_total - lse)[..., None])
    o_total.addcmul_(o_part.to(o_total.dtype), torch.exp(lse_part - lse)[..., None])
    lse_total.copy_(lse)
