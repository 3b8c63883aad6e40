"""FlashAttention-2's aten ops on the CPU, with the mask rules of torch's flash_attn/flash_api.cpp and softmax.h."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Named = dict[str, Any]


@contextmanager
def flash2_on_cpu() -> Iterator[list[Named]]:
    """Registers the ops for CPU tensors while it lasts; gives the arguments of each call, by their schema's names."""
    calls: list[Named] = []

    def forward(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        named = _named("_flash_attention_forward", args, kwargs)
        calls.append(named)
        return _forward(named)

    def backward(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        named = _named("_flash_attention_backward", args, kwargs)
        calls.append(named)
        return _backward(named)

    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    try:
        library.impl("_flash_attention_forward", forward, "CPU")  # type: ignore[no-untyped-call]
        library.impl("_flash_attention_backward", backward, "CPU")  # type: ignore[no-untyped-call]
        yield calls
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


def _named(op: str, args: tuple[Any, ...], kwargs: Named) -> Named:
    schema = getattr(torch.ops.aten, op).default._schema
    names = [argument.name for argument in schema.arguments]
    return {argument.name: None for argument in schema.arguments} | dict(zip(names, args, strict=False)) | kwargs


def _forward(call: Named) -> tuple[Tensor, ...]:
    scores, _, value = _scores(call)
    lse = torch.logsumexp(scores, dim=-1)
    o = torch.einsum("bhqk,bkhd->bqhd", torch.exp(scores - lse[..., None]).nan_to_num(), value)
    state = torch.empty(0, dtype=torch.uint64)
    no_keys = lse == float("-inf")
    return o.to(call["query"].dtype), lse.masked_fill(no_keys, float("inf")), state, state, state


def _backward(call: Named) -> tuple[Tensor, ...]:
    lse = call["logsumexp"]
    assert lse.is_contiguous() and lse.dtype == torch.float32, "the kernel takes its bare pointer"
    for name in ("grad_out", "out", "key", "value"):
        assert call[name].dtype == call["query"].dtype, name
    scores, key, value = _scores(call)
    do, o, query = (call[name].float() for name in ("grad_out", "out", "query"))
    probabilities = torch.exp(scores - lse[..., None])
    delta = (do * o).sum(dim=-1).transpose(1, 2)[..., None]
    ds = probabilities * (torch.einsum("bqhd,bkhd->bhqk", do, value) - delta) * call["scale"]
    dq = torch.einsum("bhqk,bkhd->bqhd", ds, key)
    dk, dv = torch.einsum("bhqk,bqhd->bkhd", ds, query), torch.einsum("bhqk,bqhd->bkhd", probabilities, do)
    grouped = (*call["key"].shape[:3], -1, call["key"].shape[3])
    folded = (x.reshape(grouped).sum(dim=3).to(call["key"].dtype) for x in (dk, dv))
    return dq.to(call["query"].dtype), *folded


def _scores(call: Named) -> tuple[Tensor, Tensor, Tensor]:
    """Scores in fp32 [1, heads, Sq, Sk], -inf where hidden, and keys and values with a head for every query head."""
    query, key, value = call["query"], call["key"], call["value"]
    assert query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] % 8 == 0
    assert call["cum_seq_q"] is None and call["cum_seq_k"] is None and call["dropout_p"] == 0.0
    assert (call["max_q"], call["max_k"]) == (query.shape[1], key.shape[1])
    repeats = query.shape[2] // key.shape[2]
    key, value = (x.float().repeat_interleave(repeats, dim=2) for x in (key, value))
    scores = torch.einsum("bqhd,bkhd->bhqk", query.float(), key) * call["scale"]
    return scores.masked_fill(~_visible(call, query.shape[1], key.shape[1]), float("-inf")), key, value


def _visible(call: Named, num_queries: int, num_keys: int) -> Tensor:
    """mha_fwd, then set_params_fprop, then softmax.h's apply_mask_local, in their order."""
    left, right = (-1 if call[name] is None else call[name] for name in ("window_size_left", "window_size_right"))
    left, right = (-1 if size >= num_keys else size for size in (left, right))
    if call["is_causal"]:
        right = 0
    if left < 0 and right < 0:
        return torch.ones(num_queries, num_keys, dtype=torch.bool)
    left, right = (num_keys if size < 0 else size for size in (left, right))
    middle = torch.arange(num_queries)[:, None] + num_keys - num_queries
    keys = torch.arange(num_keys)
    return (keys >= middle - left) & (keys <= middle + right)
