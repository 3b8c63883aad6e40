"""Online merge of two partial attention results (FlashAttention's rescaling, arXiv 2205.14135)."""

from __future__ import annotations

import torch
from torch import Tensor

from fpdt.blocks import blocks


def merge_partial(o_total: Tensor, lse_total: Tensor, o_part: Tensor, lse_part: Tensor) -> None:
    """Adds a partial result into (o_total fp32 [rows, heads, d], lse_total fp32 [rows, heads]) in place.

    A row with lse = -inf has seen no key: it adds nothing, and where both are -inf the result is. logaddexp, because
    log1p(exp(x)) overflows for x > 88.
    """
    lse = torch.logaddexp(lse_total, lse_part)
    # Finite, because -inf - -inf is NaN; a NaN that was read stays one.
    shift = finite(lse)
    o_total.mul_((lse_total - shift).exp_()[..., None])
    o_total.addcmul_(o_part.to(o_total.dtype), (lse_part - shift).exp_()[..., None])
    lse_total.copy_(lse)


def merge_by_lerp(o_total: Tensor, lse_total: Tensor, o_part: Tensor, lse_part: Tensor, block_bytes: int) -> None:
    """merge_partial in one pass: o_total moves towards a part by its share, a block at a time where dtypes differ.

    A share of 1 takes the part as it is, and a row that has seen no key has a share of 0.
    """
    lse = torch.logaddexp(lse_total, lse_part)
    share = finite(lse)
    torch.sub(lse_part, share, out=share).exp_()
    lse_total.copy_(lse)
    del lse
    if o_part.dtype == o_total.dtype:
        o_total.lerp_(o_part, share[..., None])
        return
    row_bytes = o_total[0].numel() * o_total.element_size()
    for rows in blocks(o_total.shape[0], row_bytes, block_bytes):
        o_total[rows].lerp_(o_part[rows].to(o_total.dtype), share[rows][..., None])


def finite(lse: Tensor) -> Tensor:
    """lse with -inf replaced by the lowest finite number, so that x - lse is -inf, and its exp 0, where x is -inf."""
    return lse.clamp(min=torch.finfo(lse.dtype).min)
