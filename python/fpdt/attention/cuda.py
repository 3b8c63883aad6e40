"""PyTorch's flash attention for CUDA, called by its aten name because it takes and gives lse."""

from __future__ import annotations

import torch
from torch import Tensor

from fpdt.attention.base import AttentionConfig, AttentionError, check_config, check_rows, heads_first, rows_first

_HALF = (torch.bfloat16, torch.float16)


class CudaFlashAttention:
    """bf16 and fp16 only, as the kernel. Heads are grouped in the kernel."""

    name = "cuda"

    def forward(self, q: Tensor, k: Tensor, v: Tensor, config: AttentionConfig, causal: bool) -> tuple[Tensor, Tensor]:
        _check(q, k, config, causal)
        o, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            heads_first(q), heads_first(k), heads_first(v), 0.0, causal, False, scale=config.scale
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
        _check(q, k, config, causal)
        empty = torch.empty(0, dtype=torch.int64, device=q.device)
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_backward(
            heads_first(do),
            heads_first(q),
            heads_first(k),
            heads_first(v),
            heads_first(o),
            lse.transpose(0, 1).unsqueeze(0).contiguous(),
            None,
            None,
            q.shape[0],
            k.shape[0],
            0.0,
            causal,
            empty,
            empty,
            scale=config.scale,
        )
        return rows_first(dq), rows_first(dk), rows_first(dv)


def _check(q: Tensor, k: Tensor, config: AttentionConfig, causal: bool) -> None:
    check_config(config, CudaFlashAttention.name)
    check_rows(q, k, causal)
    if q.dtype not in _HALF:
        raise AttentionError(f"attention backend 'cuda' takes bfloat16 or float16, got {q.dtype}; set dtype=bfloat16")
