"""FlashAttention-2 as PyTorch ships it for CUDA, called by its aten name because it takes and gives lse.

Row i of Sq queries sees keys [i + Sk - Sq - left, i + Sk - Sq + right] of Sk: aligned at the bottom right. A negative
left or right means no limit, and so does one of Sk or more, except that with a limit on the left the right becomes Sk
(torch's flash_attn/flash_api.cpp, set_params_fprop). A row without keys would get lse = +inf.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fpdt.attention.base import AttentionConfig, AttentionError, Mask, MaskName, check_call, rows_first

_HALF = (torch.bfloat16, torch.float16)
_MAX_HEAD_DIM = 256


class Flash2Attention:
    """bf16 and fp16 only, head dim a multiple of 8 up to 256, as the kernel. Heads are grouped in the kernel."""

    name = "flash2"
    masks: frozenset[MaskName] = frozenset({"full", "square", "rectangle", "window"})
    softcap = False

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, config: AttentionConfig, mask: Mask, q_start: int, kv_start: int
    ) -> tuple[Tensor, Tensor]:
        self._check(q, k, config, mask, q_start, kv_start)
        call = _call(mask, q.shape[0], k.shape[0], q_start, kv_start)
        if call.sees_all(q):
            return _forward(q, k, v, config, call)
        o, lse = torch.zeros_like(q), q.new_full(q.shape[:2], float("-inf"), dtype=torch.float32)
        if call.start < call.end:
            rows = slice(call.start, call.end)
            o[rows], lse[rows] = _forward(q[rows], k, v, config, call)
        return o, lse

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
        self._check(q, k, config, mask, q_start, kv_start)
        call = _call(mask, q.shape[0], k.shape[0], q_start, kv_start)
        if call.sees_all(q):
            return _backward(do, q, k, v, o, lse, config, call)
        if call.start >= call.end:
            return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        dq, rows = torch.zeros_like(q), slice(call.start, call.end)
        dq[rows], dk, dv = _backward(do[rows], q[rows], k, v, o[rows], lse[rows], config, call)
        return dq, dk, dv

    def _check(self, q: Tensor, k: Tensor, config: AttentionConfig, mask: Mask, q_start: int, kv_start: int) -> None:
        check_call(self, q, k, config, mask, q_start, kv_start)
        if q.dtype not in _HALF:
            raise AttentionError(
                f"attention backend '{self.name}' takes bfloat16 or float16, got {q.dtype}", "use bfloat16"
            )
        if q.shape[2] % 8 or q.shape[2] > _MAX_HEAD_DIM:
            raise AttentionError(
                f"attention backend '{self.name}' takes head dims of 8, 16, .. {_MAX_HEAD_DIM}, got {q.shape[2]}",
                "plan with kernels 'reference'",
            )


class Call(NamedTuple):
    """What to ask of the kernel: query rows [start, end), which are those that see a key, and its mask over them."""

    start: int
    end: int
    is_causal: bool = False
    left: int | None = None
    right: int | None = None

    def sees_all(self, q: Tensor) -> bool:
        return (self.start, self.end) == (0, q.shape[0])


def _call(mask: Mask, num_queries: int, num_keys: int, q_start: int, kv_start: int) -> Call:
    """Leaves out queries without keys: then the distance from the last key to the last query fits the window."""
    if mask.window is None:
        return Call(0, num_queries, is_causal=mask.kind == "causal")
    kv_end = kv_start + num_keys
    start = max(q_start, kv_start)
    end = max(start, min(q_start + num_queries, kv_end - 1 + mask.window))
    right = end - kv_end
    if right >= num_keys and end - start > num_keys + 1:
        raise AttentionError(
            f"attention backend '{Flash2Attention.name}' cannot mask {num_keys} keys from {kv_start} on for queries "
            f"[{start}, {end}) in one call: more keys than queries are needed",
            "plan with kernels 'reference', or let keys come in tiles no shorter than a chunk",
        )
    return Call(start - q_start, end - q_start, left=mask.window - 1 - right, right=right)


def _forward(q: Tensor, k: Tensor, v: Tensor, config: AttentionConfig, call: Call) -> tuple[Tensor, Tensor]:
    o, lse, *_ = torch.ops.aten._flash_attention_forward(
        q.unsqueeze(0),
        k.unsqueeze(0),
        v.unsqueeze(0),
        None,
        None,
        q.shape[0],
        k.shape[0],
        0.0,
        call.is_causal,
        False,
        scale=config.scale,
        window_size_left=call.left,
        window_size_right=call.right,
    )
    return o.squeeze(0), rows_first(lse)


def _backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, config: AttentionConfig, call: Call
) -> tuple[Tensor, Tensor, Tensor]:
    no_dropout_state = torch.empty(0, dtype=torch.uint64, device=q.device)
    dq, dk, dv = torch.ops.aten._flash_attention_backward(
        do.unsqueeze(0),
        q.unsqueeze(0),
        k.unsqueeze(0),
        v.unsqueeze(0),
        o.unsqueeze(0),
        lse.transpose(0, 1).unsqueeze(0).contiguous(),
        None,
        None,
        q.shape[0],
        k.shape[0],
        0.0,
        call.is_causal,
        no_dropout_state,
        no_dropout_state,
        scale=config.scale,
        window_size_left=call.left,
        window_size_right=call.right,
    )
    return dq.squeeze(0), dk.squeeze(0), dv.squeeze(0)
