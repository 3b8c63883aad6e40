"""Attention backends against softmax attention written out in fp64, under every mask.

Kernels of GPUs run on CPU stand-ins of their ops that have the kernel's own rules for masks (fake_flash, fake_cudnn).
"""

from __future__ import annotations

import pytest
import torch

from fpdt.attention import BACKENDS, CAPABILITIES, AttentionBackend, AttentionConfig, backend_named
from tests.attention_cases import (
    CASES,
    CONFIG,
    DTYPES,
    NO_KEY,
    TOLERANCE,
    Case,
    case_id,
    exact,
    largest_error,
    on_cpu,
    tensors,
)


def runs(cases: list[Case]) -> list[tuple[str, Case, torch.dtype]]:
    return [
        (name, case, dtype)
        for name in BACKENDS
        for case in cases
        if case.name in CAPABILITIES[name]
        for dtype in DTYPES[name]
    ]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (5, 1)])
@pytest.mark.parametrize(("name", "case", "dtype"), runs(CASES), ids=case_id)
def test_values_and_gradients_of_every_mask(
    name: str, case: Case, dtype: torch.dtype, heads: int, kv_heads: int
) -> None:
    with on_cpu(name):
        check(backend_named(name), case, dtype, heads, kv_heads, CONFIG)


@pytest.mark.parametrize("softcap", [0.5, 30.0])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_softcap_bounds_the_scores_under_every_mask(case: Case, dtype: torch.dtype, softcap: float) -> None:
    check(backend_named("reference"), case, dtype, 6, 2, AttentionConfig(CONFIG.scale, softcap))


def check(
    backend: AttentionBackend, case: Case, dtype: torch.dtype, heads: int, kv_heads: int, config: AttentionConfig
) -> None:
    q, k, v, do = tensors(case, heads, kv_heads, dtype)
    before = [x.clone() for x in (q, k, v, do)]
    expected_o, expected_lse, expected_grads = exact(case, q, k, v, do, config)
    start = (case.queries[0], case.keys[0])
    place = torch.full_like(q, float("nan"))
    o, lse = backend.forward(q, k, v, config, case.mask, *start, out=place)
    assert o is place or place.isnan().all(), "out is written, or left alone"
    again, _ = backend.forward(q, k, v, config, case.mask, *start)
    assert torch.equal(again, o)
    assert (o.shape, o.dtype, lse.shape) == (q.shape, dtype, q.shape[:2])
    assert lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    blind = expected_lse == NO_KEY
    assert torch.equal(lse == NO_KEY, blind), "exactly the rows without a key have lse = -inf"
    assert not o[blind].any()
    assert largest_error(o, expected_o) < TOLERANCE[dtype]
    assert largest_error(lse.exp(), expected_lse.exp()) < TOLERANCE[dtype], "0 where no key is seen"
    for laid_out in (lse.contiguous(), lse.t().contiguous().t()):
        grads = backend.backward(do, q, k, v, o, laid_out, config, case.mask, *start)
    unseen = (expected_grads[2] == 0).flatten(1).all(dim=1)
    nothing = (blind.all(dim=1), unseen, unseen)
    for grad, expected, like, zero_rows in zip(grads, expected_grads, (q, k, v), nothing, strict=True):
        assert (grad.shape, grad.dtype) == (like.shape, dtype)
        assert largest_error(grad, expected) < TOLERANCE[dtype]
        assert not grad[zero_rows].any(), "what sees or is seen by nothing has no gradient"
    assert all(torch.equal(x, y) for x, y in zip((q, k, v, do), before, strict=True)), "inputs changed"
