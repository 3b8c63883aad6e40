"""PyTorch's flash attention for CPU, called by its aten name because it takes and gives lse."""

from __future__ import annotations

import torch
from torch import Tensor

from fpdt.attention.base import AttentionConfig, Mask, MaskName, check_call, heads_first, require_device, rows_first


class CpuFlashAttention:
    """Memory is linear in rows. Grouped heads, fp64 and bf16 (with lse in fp32) are native in the kernel.

    Its causal mask is aligned at the top left, so that only a square means what it should.
    """

    name = "cpu_flash"
    masks: frozenset[MaskName] = frozenset({"full", "square"})
    softcap = False

    def require(self, device: torch.device) -> None:
        require_device(self, device, "cpu")

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
        o, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            heads_first(q),
            heads_first(k),
            heads_first(v),
            0.0,
            mask.kind == "causal",
            attn_mask=None,
            scale=config.scale,
        )
        return rows_first(o), rows_first(lse)

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
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            heads_first(do),
            heads_first(q),
            heads_first(k),
            heads_first(v),
            heads_first(o),
            _lse_heads_first(lse, q.dtype),
            0.0,
            mask.kind == "causal",
            attn_mask=None,
            scale=config.scale,
        )
        return rows_first(dq), rows_first(dk), rows_first(dv)


def _lse_heads_first(lse: Tensor, dtype: torch.dtype) -> Tensor:
    """[1, heads, rows], of any strides; fp64 takes an fp64 lse."""
    return lse.to(torch.float64 if dtype == torch.float64 else torch.float32).transpose(0, 1).unsqueeze(0)
