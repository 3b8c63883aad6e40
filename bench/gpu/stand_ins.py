"""What a CPU lacks of CUDA's: the aten ops of FlashAttention-2 and cuDNN, and DeepSpeed's streams. For dry runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.fake_flash2 import flash2_on_cpu

_LIBRARY = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
_FLASH2 = flash2_on_cpu()


def install() -> None:
    """For the rest of the process."""
    _FLASH2.__enter__()
    _LIBRARY.impl("_scaled_dot_product_cudnn_attention", _cudnn_forward, "CPU")  # type: ignore[no-untyped-call]
    _LIBRARY.impl("_scaled_dot_product_cudnn_attention_backward", _cudnn_backward, "CPU")  # type: ignore[no-untyped-call]


def lend_streams(accelerator: Any) -> None:
    """DeepSpeed's fpdt_layer makes streams without asking whether the accelerator has any."""
    kind = type(accelerator)
    if accelerator.Stream is None:
        kind.Stream = Stream
        kind.default_stream = lambda self, device_index=None: Stream()


class Stream:
    def wait_stream(self, other: Stream) -> None: ...

    def synchronize(self) -> None: ...


def _cudnn_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    """Heads before rows, causal from the top left; lse is [1, heads, rows, 1]."""
    assert attn_bias is None and compute_log_sumexp and dropout_p == 0.0 and not return_debug_mask
    _check_square(query, key, is_causal)
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    o, lse, *_ = torch.ops.aten._flash_attention_forward(
        q, k, v, None, None, q.shape[1], k.shape[1], 0.0, is_causal, False, scale=scale
    )
    none, state = query.new_empty(0), torch.empty(0, dtype=torch.uint64)
    lengths = query.shape[2], key.shape[2]
    return o.transpose(1, 2), lse[..., None], none, none, *lengths, state, state, none


def _cudnn_backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    philox_seed: Tensor,
    philox_offset: Tensor,
    attn_bias: Tensor | None,
    cum_seq_q: Tensor | None,
    cum_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    *,
    scale: float | None = None,
) -> tuple[Tensor, ...]:
    _check_square(query, key, is_causal)
    assert logsumexp.shape == (*query.shape[:3], 1) and logsumexp.is_contiguous(), "cuDNN takes its bare pointer"
    assert (max_q, max_k) == (query.shape[2], key.shape[2])
    do, q, k, v, o = (x.transpose(1, 2) for x in (grad_out, query, key, value, out))
    state = torch.empty(0, dtype=torch.uint64)
    grads = torch.ops.aten._flash_attention_backward(
        do, q, k, v, o, logsumexp[..., 0], None, None, max_q, max_k, 0.0, is_causal, state, state, scale=scale
    )
    return tuple(grad.transpose(1, 2) for grad in grads)


def _check_square(query: Tensor, key: Tensor, is_causal: bool) -> None:
    assert not is_causal or query.shape[2] == key.shape[2], "causal from the top left means something else here"
