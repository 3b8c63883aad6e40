"""PyTorch's flash attention for CPU, called by its aten name because it takes and gives lse."""

from __future__ import annotations

import torch
from torch import Tensor

from fpdt.attention.base import AttentionConfig, check_config, check_rows, heads_first, rows_first


class CpuFlashAttention:
    """Memory is linear in rows. Grouped heads, fp64 and bf16 (with lse in fp32) are native in the kernel."""

    name = "cpu_flash"

    def forward(self, q: Tensor, k: Tensor, v: Tensor, config: AttentionConfig, causal: bool) -> tuple[Tensor, Tensor]:
        check_config(config, self.name)
        check_rows(q, k, causal)
        o, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            heads_first(q), heads_first(k), heads_first(v), 0.0, causal, attn_mask=None, scale=config.scale
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
        causal: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        check_config(config, self.name)
        check_rows(q, k, causal)
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            heads_first(do),
            heads_first(q),
            heads_first(k),
            heads_first(v),
            heads_first(o),
            _lse_heads_first(lse, q.dtype),
            0.0,
            causal,
            attn_mask=None,
            scale=config.scale,
        )
        return rows_first(dq), rows_first(dk), rows_first(dv)


def _lse_heads_first(lse: Tensor, dtype: torch.dtype) -> Tensor:
    """[1, heads, rows] with strides (., 1, heads), as the kernel's own forward gives it; fp64 takes an fp64 lse."""
    return lse.to(torch.float64 if dtype == torch.float64 else torch.float32).transpose(0, 1).unsqueeze(0)
