"""The aten ops of FlashAttention, which version 2, 3 and 4 stand behind, called by name: they take and give lse.

Row i of Sq queries sees keys [i + Sk - Sq - left, i + Sk - Sq + right] of Sk: aligned at the bottom right. No left or
no right means no limit. A row without keys would get lse = +inf.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from fpdt.attention.base import AttentionConfig, Mask, MaskName, check_call, check_half, rows_first

_WRITES_OUT = hasattr(torch.ops.aten, "_flash_attention_forward_no_dropout_inplace")
"""torch 2.13 has it; before, o is made by the kernel and copied by whoever called."""


class Call(NamedTuple):
    """What to ask of the kernel: query rows [start, end), which are those that see a key, and its mask over them."""

    start: int
    end: int
    is_causal: bool = False
    left: int | None = None
    right: int | None = None

    def sees_all(self, q: Tensor) -> bool:
        return (self.start, self.end) == (0, q.shape[0])


class AtenFlash(ABC):
    """bf16 and fp16 only, head dim a multiple of 8. Heads are grouped in the kernel."""

    name: str
    masks: frozenset[MaskName]
    softcap = False
    head_dims = (8, 256)
    """A multiple of the first, at most the second."""

    @abstractmethod
    def require(self, device: torch.device) -> None:
        """See AttentionBackend."""

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
        call = self._call(q, k, config, mask, q_start, kv_start)
        if call.sees_all(q):
            return _forward(q, k, v, config, call, out)
        o = torch.zeros_like(q) if out is None else out.zero_()
        lse = q.new_full((q.shape[1], q.shape[0]), float("-inf"), dtype=torch.float32).t()
        if call.start < call.end:
            rows = slice(call.start, call.end)
            part, lse[rows] = _forward(q[rows], k, v, config, call, o[rows])
            if part.data_ptr() != o[rows].data_ptr():
                o[rows] = part
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
        call = self._call(q, k, config, mask, q_start, kv_start)
        if call.sees_all(q):
            return _backward(do, q, k, v, o, lse, config, call)
        if call.start >= call.end:
            return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        dq, rows = torch.zeros_like(q), slice(call.start, call.end)
        dq[rows], dk, dv = _backward(do[rows], q[rows], k, v, o[rows], lse[rows], config, call)
        return dq, dk, dv

    def _call(self, q: Tensor, k: Tensor, config: AttentionConfig, mask: Mask, q_start: int, kv_start: int) -> Call:
        check_call(self, q, k, config, mask, q_start, kv_start)
        check_half(self, q, *self.head_dims)
        return mask_call(mask, q.shape[0], k.shape[0], q_start, kv_start)


def mask_call(mask: Mask, num_queries: int, num_keys: int, q_start: int, kv_start: int) -> Call:
    """Leaves out queries without keys: then the distance from the last key to the last query fits the window."""
    if mask.window is None:
        return Call(0, num_queries, is_causal=mask.kind == "causal")
    kv_end = kv_start + num_keys
    start = max(q_start, kv_start)
    end = max(start, min(q_start + num_queries, kv_end - 1 + mask.window))
    right = end - kv_end
    return Call(start - q_start, end - q_start, left=mask.window - 1 - right, right=right)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, config: AttentionConfig, call: Call, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    arguments = (
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
    )
    options = {"scale": config.scale, "window_size_left": call.left, "window_size_right": call.right}
    if out is not None and _WRITES_OUT:
        lse = torch.ops.aten._flash_attention_forward_no_dropout_inplace(out.unsqueeze(0), *arguments, **options)
        return out, rows_first(lse)
    o, lse, *_ = torch.ops.aten._flash_attention_forward(*arguments, **options)
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
