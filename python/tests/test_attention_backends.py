"""What attention backends have, and refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fpdt.attention import (
    BACKENDS,
    CAPABILITIES,
    CAUSAL,
    FULL,
    AttentionConfig,
    AttentionError,
    Mask,
    backend_named,
)
from tests.attention_cases import CONFIG, HEAD_DIM


def test_capabilities_are_those_of_the_contract() -> None:
    everything = {"full", "square", "rectangle", "window"}
    squares = {"full", "square"}
    expected = {
        "reference": everything,
        "cpu_flash": squares,
        "flash2": everything,
        "cudnn": squares,
        "flash3": everything,
        "flash4": {*squares, "rectangle"},
    }
    assert expected == CAPABILITIES
    assert [name for name in BACKENDS if backend_named(name).softcap] == ["reference"]


def some(
    num_queries: int,
    num_keys: int,
    kv_heads: int = 2,
    head_dim: int = HEAD_DIM,
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v of zeros; 4 query heads."""
    q = torch.zeros(num_queries, 4, head_dim, dtype=dtype)
    k = torch.zeros(num_keys, kv_heads, head_dim, dtype=dtype)
    return q, k, k.clone()


@pytest.mark.parametrize("name", BACKENDS)
def test_errors_name_what_is_wrong(name: str) -> None:
    backend = backend_named(name)
    with pytest.raises(AttentionError, match="4 query heads do not divide over 3"):
        backend.forward(*some(8, 8, kv_heads=3), CONFIG, FULL, 0, 0)
    if not backend.softcap:
        with pytest.raises(AttentionError, match=r"has no softcap, but the model has 30\.0"):
            backend.forward(*some(8, 8), AttentionConfig(1.0, softcap=30.0), FULL, 0, 0)
    for keys, kv_start in ((8, 0), (4, 8), (7, 9)):
        with pytest.raises(AttentionError, match="keys that end with the queries and begin no later"):
            backend.forward(*some(8, keys), CONFIG, CAUSAL, 8, kv_start)
    with pytest.raises(AttentionError, match=r"keys \(0, 9\) of a window must not end after its queries \(0, 8\)"):
        backend.forward(*some(8, 9), CONFIG, Mask("window", 4), 0, 0)


@pytest.mark.parametrize(("mask", "missing"), [(CAUSAL, "rectangle"), (Mask("window", 4), "window")])
def test_a_mask_that_a_backend_does_not_have_is_refused_by_name(mask: Mask, missing: str) -> None:
    q, k, v = some(4, 8)
    with pytest.raises(AttentionError, match=f"'cpu_flash' has no mask '{missing}' .* only full, square") as caught:
        backend_named("cpu_flash").forward(q, k, v, CONFIG, mask, 4, 0)
    assert "'reference'" in caught.value.hint
    with pytest.raises(AttentionError, match=f"'cpu_flash' has no mask '{missing}'"):
        backend_named("cpu_flash").backward(q, q, k, v, q, torch.zeros(4, 4), CONFIG, mask, 4, 0)


@pytest.mark.usefixtures("flash2_calls")
def test_flash2_refuses_what_the_kernel_cannot() -> None:
    backend = backend_named("flash2")
    with pytest.raises(AttentionError, match=r"takes bfloat16 or float16, got torch\.float32"):
        backend.forward(*some(8, 8, dtype=torch.float32), CONFIG, FULL, 0, 0)
    for head_dim in (12, 264):
        with pytest.raises(AttentionError, match=f"takes head dims of 8, 16, .. 256, got {head_dim}"):
            backend.forward(*some(8, 8, head_dim=head_dim), CONFIG, FULL, 0, 0)
    for num_keys in (3, 6):
        with pytest.raises(
            AttentionError, match=rf"cannot mask {num_keys} keys from 0 on for queries \[8, 16\) in one"
        ):
            backend.forward(*some(8, num_keys), CONFIG, Mask("window", 100), 8, 0)
    backend.forward(*some(8, 7), CONFIG, Mask("window", 100), 8, 0)


def test_unknown_names_and_masks() -> None:
    with pytest.raises(AttentionError, match="unknown attention backend 'flash9'") as caught:
        backend_named("flash9")
    assert caught.value.hint == "expected one of reference, cpu_flash, flash2, cudnn, flash3, flash4"
    with pytest.raises(AttentionError, match="unknown mask 'sliding'"):
        Mask("sliding")  # type: ignore[arg-type]
    with pytest.raises(AttentionError, match="mask 'window' with window=None"):
        Mask("window")
    with pytest.raises(AttentionError, match="mask 'causal' with window=4"):
        Mask("causal", 4)
    with pytest.raises(AttentionError, match="a window of 0 tokens"):
        Mask("window", 0)
