"""cuDNN's attention, called by its aten name because it takes and gives lse; to compare with the worker's kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from fpdt.attention import BACKENDS, AttentionBackend, AttentionConfig, Mask, backend_named
from fpdt.attention.base import MaskName, check_call, heads_first, rows_first


def kernel_named(name: str) -> AttentionBackend:
    """The worker's where it has one of this name."""
    return CudnnAttention() if name == CudnnAttention.name and name not in BACKENDS else backend_named(name)


class CudnnAttention:
    """bf16 and fp16. Its causal mask is aligned at the top left; its lse is [1, heads, rows, 1]."""

    name = "cudnn"
    masks: frozenset[MaskName] = frozenset({"full", "square"})
    softcap = False

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, config: AttentionConfig, mask: Mask, q_start: int, kv_start: int
    ) -> tuple[Tensor, Tensor]:
        check_call(self, q, k, config, mask, q_start, kv_start)
        o, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
            heads_first(q),
            heads_first(k),
            heads_first(v),
            None,
            True,
            0.0,
            mask.kind == "causal",
            False,
            scale=config.scale,
        )
        return rows_first(o), rows_first(lse.squeeze(-1))

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
        state = torch.empty(0, dtype=torch.uint64, device=q.device)
        dq, dk, dv = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
            heads_first(do),
            heads_first(q),
            heads_first(k),
            heads_first(v),
            heads_first(o),
            lse.transpose(0, 1).contiguous()[None, :, :, None],
            state,
            state,
            None,
            None,
            None,
            q.shape[0],
            k.shape[0],
            0.0,
            mask.kind == "causal",
            scale=config.scale,
        )
        return rows_first(dq), rows_first(dk), rows_first(dv)
