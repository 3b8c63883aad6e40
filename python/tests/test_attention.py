"""Attention backends against PyTorch's own attention in fp64, whole and in parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fpdt.attention import (
    BACKENDS,
    AttentionBackend,
    AttentionConfig,
    AttentionError,
    backend_named,
    default_backend,
    merge_partial,
)

HEAD_DIM = 16
CONFIG = AttentionConfig(scale=HEAD_DIM**-0.5)
TOLERANCE = {torch.float64: 1e-6, torch.float32: 5e-6, torch.bfloat16: 4e-2}
CPU_BACKENDS = ["reference", "cpu_flash"]

Case = tuple[Tensor, Tensor, Tensor, Tensor]


def make_case(rows: int, heads: int, kv_heads: int, dtype: torch.dtype) -> Case:
    generator = torch.Generator().manual_seed(rows + heads)
    shapes = [(rows, heads, HEAD_DIM), (rows, kv_heads, HEAD_DIM), (rows, kv_heads, HEAD_DIM), (rows, heads, HEAD_DIM)]
    q, k, v, do = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes)
    return q, k, v, do


def exact(case: Case) -> tuple[Tensor, list[Tensor]]:
    """Causal attention and its gradients in fp64, rows first."""
    q, k, v, do = (x.detach().double() for x in case)
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    query, key, value = (x.transpose(0, 1).unsqueeze(0) for x in leaves)
    o = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True, scale=CONFIG.scale)
    o = o.squeeze(0).transpose(0, 1)
    return o.detach(), list(torch.autograd.grad(o, leaves, do))


def streamed_forward(backend: AttentionBackend, case: Case, chunk: int) -> tuple[Tensor, Tensor]:
    """Every q chunk over its diagonal first, then over all keys before it, merged in fp32."""
    q, k, v, _ = case
    outputs, lses = [], []
    for start in range(0, q.shape[0], chunk):
        rows = slice(start, start + chunk)
        o, lse = backend.forward(q[rows], k[rows], v[rows], CONFIG, causal=True)
        o, lse = o.float().clone(), lse.float().clone()
        if start > 0:
            past = backend.forward(q[rows], k[:start], v[:start], CONFIG, causal=False)
            merge_partial(o, lse, past[0], past[1].float())
        outputs.append(o.to(q.dtype))
        lses.append(lse)
    return torch.cat(outputs), torch.cat(lses)


def streamed_backward(backend: AttentionBackend, case: Case, o: Tensor, lse: Tensor, chunk: int) -> list[Tensor]:
    q, k, v, do = case
    dq, dk, dv = (torch.zeros_like(x, dtype=torch.float32) for x in (q, k, v))
    for start in range(0, q.shape[0], chunk):
        rows = slice(start, start + chunk)
        for kv, causal in ((rows, True), (slice(0, start), False)):
            if kv.stop == 0:
                continue
            grads = backend.backward(do[rows], q[rows], k[kv], v[kv], o[rows], lse[rows], CONFIG, causal)
            for total, grad in zip((dq[rows], dk[kv], dv[kv]), grads, strict=True):
                total += grad
    return [dq, dk, dv]


def largest_error(actual: Tensor, expected: Tensor) -> float:
    """Relative to the largest expected value."""
    return float((actual.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("chunk", [8, 32])
@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_parts_merge_to_the_whole(name: str, chunk: int, heads: int, kv_heads: int, dtype: torch.dtype) -> None:
    case = make_case(32, heads, kv_heads, dtype)
    expected, expected_grads = exact(case)
    o, lse = streamed_forward(backend_named(name), case, chunk)
    assert largest_error(o, expected) < TOLERANCE[dtype]
    grads = streamed_backward(backend_named(name), case, o, lse, chunk)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert largest_error(grad, expected_grad) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_lse_is_the_natural_logarithm_in_fp32_and_nothing_is_modified(name: str) -> None:
    case = make_case(16, 4, 2, torch.float32)
    before = [x.clone() for x in case]
    q, k, v, do = case
    backend = backend_named(name)
    o, lse = backend.forward(q, k, v, CONFIG, causal=False)
    scores = torch.einsum("qhd,khd->qhk", q, k.repeat_interleave(2, dim=1)) * CONFIG.scale
    torch.testing.assert_close(lse, torch.logsumexp(scores, dim=-1))
    assert lse.dtype == torch.float32
    backend.backward(do, q, k, v, o, lse.contiguous(), CONFIG, causal=False)
    assert all(torch.equal(x, y) for x, y in zip(case, before, strict=True))


@pytest.mark.parametrize("gap", [-500.0, -100.0, 0.0, 100.0, 500.0])
def test_merge_survives_any_gap_between_lse(gap: float) -> None:
    o, lse = torch.full((2, 3, 4), 1.0), torch.zeros(2, 3)
    merge_partial(o, lse, torch.full((2, 3, 4), 3.0), torch.full((2, 3), gap))
    weight = torch.sigmoid(torch.tensor(gap, dtype=torch.float64))
    torch.testing.assert_close(o, torch.full_like(o, float(1 + 2 * weight)))
    torch.testing.assert_close(lse, torch.full_like(lse, max(gap, 0.0) if gap else 0.6931472))


def test_errors_name_what_is_wrong() -> None:
    q, k, v, _ = make_case(8, 4, 2, torch.float32)
    with pytest.raises(AttentionError, match="unknown attention backend 'flash3', expected one of reference"):
        backend_named("flash3")
    with pytest.raises(AttentionError, match="no attention backend for device 'tpu'"):
        default_backend("tpu")
    for name in BACKENDS:
        with pytest.raises(AttentionError, match="window=4"):
            backend_named(name).forward(q, k, v, AttentionConfig(scale=1.0, window=4), causal=True)
        with pytest.raises(AttentionError, match="as many query rows as key rows, got 4 and 8"):
            backend_named(name).forward(q[:4], k, v, CONFIG, causal=True)
        with pytest.raises(AttentionError, match="4 query heads do not divide over 3"):
            backend_named(name).forward(q, torch.empty(8, 3, HEAD_DIM), v, CONFIG, causal=True)
    with pytest.raises(AttentionError, match="takes bfloat16 or float16"):
        backend_named("cuda").forward(q, k, v, CONFIG, causal=True)


def test_cuda_backend_has_the_shapes_of_the_interface() -> None:
    """On meta tensors: the ops exist, take these arguments and give rows-first results."""
    q, k, v, do = (x.to("meta") for x in make_case(16, 4, 2, torch.bfloat16))
    backend = backend_named("cuda")
    o, lse = backend.forward(q, k, v, CONFIG, causal=True)
    assert (o.shape, lse.shape, lse.dtype) == (q.shape, (16, 4), torch.float32)
    grads = backend.backward(do, q, k, v, torch.empty_like(q), torch.empty_like(lse), CONFIG, causal=True)
    assert [grad.shape for grad in grads] == [q.shape, k.shape, v.shape]
