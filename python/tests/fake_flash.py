"""FlashAttention's aten ops on the CPU, with the mask rules of each version's own source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Named = dict[str, Any]


@contextmanager
def flash_on_cpu(version: int = 2) -> Iterator[list[Named]]:
    """Registers the ops for CPU tensors while it lasts; gives the arguments of each call, by their schema's names."""
    calls: list[Named] = []

    def noted(op: str, args: tuple[Any, ...], kwargs: Named) -> Named:
        calls.append({**named_arguments(op, args, kwargs), "version": version})
        return calls[-1]

    def forward(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return flash_forward(noted("_flash_attention_forward", args, kwargs))

    def in_place(*args: Any, **kwargs: Any) -> Tensor:
        call = noted("_flash_attention_forward_no_dropout_inplace", args, kwargs)
        o, lse, *_ = flash_forward(call)
        assert call["out"].is_contiguous() and call["out"].shape == o.shape
        call["out"].copy_(o)
        return lse

    def backward(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return flash_backward(noted("_flash_attention_backward", args, kwargs))

    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    try:
        library.impl("_flash_attention_forward", forward, "CPU")  # type: ignore[no-untyped-call]
        library.impl("_flash_attention_forward_no_dropout_inplace", in_place, "CPU")  # type: ignore[no-untyped-call]
        library.impl("_flash_attention_backward", backward, "CPU")  # type: ignore[no-untyped-call]
        yield calls
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


def named_arguments(op: str, args: tuple[Any, ...], kwargs: Named) -> Named:
    """All arguments of a call by name; what is left out has the schema's default."""
    schema = getattr(torch.ops.aten, op).default._schema
    names = [argument.name for argument in schema.arguments]
    defaults = {argument.name: argument.default_value for argument in schema.arguments}
    return defaults | dict(zip(names, args, strict=False)) | kwargs


def flash_forward(call: Named) -> tuple[Tensor, ...]:
    """o and lse of a call, and what else the op gives."""
    scores, _, value = _scores(call)
    lse = torch.logsumexp(scores, dim=-1)
    o = torch.einsum("bhqk,bkhd->bqhd", torch.exp(scores - lse[..., None]).nan_to_num(), value)
    state = torch.empty(0, dtype=torch.uint64)
    no_keys = lse == float("-inf")
    return o.to(call["query"].dtype), lse.masked_fill(no_keys, float("inf")), state, state, state


def flash_backward(call: Named) -> tuple[Tensor, ...]:
    """dq, dk and dv of a call."""
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
    """Limits as each version reads them, then those of a mask aligned at the bottom right (softmax.h, mask.h)."""
    left, right = (-1 if call[name] is None else call[name] for name in ("window_size_left", "window_size_right"))
    if call["is_causal"]:
        right = 0
    left, right = _LIMITS[call["version"]](left, right, num_queries, num_keys)
    if left < 0 and right < 0:
        return torch.ones(num_queries, num_keys, dtype=torch.bool)
    middle = torch.arange(num_queries)[:, None] + num_keys - num_queries
    keys = torch.arange(num_keys)
    return (keys >= middle - left) & (keys <= middle + right)


def _limits_of_2(left: int, right: int, num_queries: int, num_keys: int) -> tuple[int, int]:
    """torch's flash_attn/flash_api.cpp: mha_fwd, then set_params_fprop."""
    left, right = (-1 if size >= num_keys else size for size in (left, right))
    if left < 0 and right < 0:
        return left, right
    return (num_keys if left < 0 else left), (num_keys if right < 0 else right)


def _limits_of_3(left: int, right: int, num_queries: int, num_keys: int) -> tuple[int, int]:
    """hopper/flash_api.cpp: mha_fwd, then set_params_fprop."""
    left = -1 if left >= num_keys - 1 else left
    right = -1 if right >= num_queries - 1 else right
    if left < 0 and right < 0:
        return left, right
    return (num_keys - 1 if left < 0 else left), (num_queries - 1 if right < 0 else right)


def _limits_of_4(left: int, right: int, num_queries: int, num_keys: int) -> tuple[int, int]:
    """flash_attn/cute/interface.py, which is asked for no window here."""
    assert left < 0 and right <= 0
    return (num_keys if right == 0 else left), right


_LIMITS = {2: _limits_of_2, 3: _limits_of_3, 4: _limits_of_4}
