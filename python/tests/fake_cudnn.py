"""cuDNN's aten ops on the CPU: causal from the top left, lse as an installed torch has it, bare pointers checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tests.fake_flash import Named, flash_backward, flash_forward, named_arguments


@contextmanager
def cudnn_on_cpu(*, lse_column: bool = True) -> Iterator[list[Named]]:
    """Registers the ops for CPU tensors while it lasts; gives the arguments of each call, by their schema's names.

    `lse_column`: lse is [1, heads, rows, 1], as one torch has it, else [1, heads, rows].
    """
    calls: list[Named] = []

    def noted(op: str, args: tuple[Any, ...], kwargs: Named) -> Named:
        calls.append(named_arguments(op, args, kwargs))
        return calls[-1]

    def forward(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        return _forward(noted("_scaled_dot_product_cudnn_attention", args, kwargs), lse_column)

    def backward(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return _backward(noted("_scaled_dot_product_cudnn_attention_backward", args, kwargs), lse_column)

    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    try:
        library.impl("_scaled_dot_product_cudnn_attention", forward, "CPU")  # type: ignore[no-untyped-call]
        library.impl("_scaled_dot_product_cudnn_attention_backward", backward, "CPU")  # type: ignore[no-untyped-call]
        yield calls
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


def _forward(call: Named, lse_column: bool) -> tuple[Any, ...]:
    assert call["attn_bias"] is None and call["compute_log_sumexp"]
    assert not call["dropout_p"] and not call["return_debug_mask"]
    o, lse, *_ = flash_forward(_as_flash(call))
    none, state = call["query"].new_empty(0), torch.empty(0, dtype=torch.uint64)
    lengths = call["query"].shape[2], call["key"].shape[2]
    # torch makes it with the layout of query.
    return (
        o.contiguous().transpose(1, 2),
        lse[..., None] if lse_column else lse,
        none,
        none,
        *lengths,
        state,
        state,
        none,
    )


def _backward(call: Named, lse_column: bool) -> tuple[Tensor, ...]:
    query, lse = call["query"], call["logsumexp"]
    assert lse.shape == (*query.shape[:3], *((1,) if lse_column else ())), "the shape that forward gives"
    assert lse.is_contiguous(), "cuDNN takes its bare pointer"
    assert call["grad_out"].stride() == call["out"].stride(), "else torch copies it"
    assert (call["max_q"], call["max_k"]) == (query.shape[2], call["key"].shape[2])
    flash = {**_as_flash(call), "logsumexp": lse.reshape(query.shape[:3])}
    for name in ("grad_out", "out"):
        flash[name] = call[name].transpose(1, 2)
    return tuple(grad.transpose(1, 2) for grad in flash_backward(flash))


def _as_flash(call: Named) -> Named:
    """Heads before rows become rows before heads; on a square both corners are the same."""
    query, key, value = (call[name].transpose(1, 2) for name in ("query", "key", "value"))
    assert not call["is_causal"] or query.shape[1] == key.shape[1], "causal from the top left means something else here"
    rest = {"cum_seq_q": None, "cum_seq_k": None, "dropout_p": 0.0, "window_size_left": None, "window_size_right": None}
    lengths = {"max_q": query.shape[1], "max_k": key.shape[1], "version": 2}
    return {**rest, **lengths, **call, "cum_seq_q": None, "cum_seq_k": None, "query": query, "key": key, "value": value}
