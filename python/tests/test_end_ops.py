"""Handlers at the ends of a step: loss, embedding, emitted gradients and moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fpdt.models import EngineBinding
from fpdt.run.parameters import WeightSlice
from tests.handler_calls import Caller, Group, close
from tests.tiny_models import bound_engine, tiny_llama

HIDDEN = 32


def loss_case(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(12, HIDDEN, generator=generator).to(dtype)
    labels = torch.randint(0, 40, (12,), generator=generator)
    labels[[2, 11]] = -100
    return x, labels


def head_regions(engine: EngineBinding) -> tuple[Tensor, Tensor]:
    """Zeroed regions of the final norm and of lm_head."""
    norm, lm_head = ([weight.numel for weight in group] for group in (norm_weights(engine), engine.lm_head_weights))
    return torch.zeros(sum(norm)), torch.zeros(sum(lm_head))


def norm_weights(engine: EngineBinding) -> list[WeightSlice]:
    """Those of the head's group that are not lm_head's."""
    own = {weight.name for weight in engine.lm_head_weights}
    return [weight for weight in engine.head_weights if weight.name not in own]


@pytest.mark.parametrize("tiles", [1, 3, 7])
@pytest.mark.parametrize("tied", [False, True])
def test_loss_of_tiles_is_cross_entropy_with_its_gradients(tied: bool, tiles: int) -> None:
    model, factor = tiny_llama(tie_word_embeddings=tied), 4096.0
    extra = bound_engine(model)
    extra.loss_factor = factor
    x, labels = loss_case(torch.float32)
    dx, total = torch.full_like(x, float("nan")), torch.zeros(1)
    regions = head_regions(extra)
    call = Caller(Group(1).ranks()[0], extra)
    for rows in (slice(0, 5), slice(5, 12)):
        call("loss", [x[rows], labels[rows]], [dx[rows]], [total, *regions], tiles=tiles)

    leaf = x.clone().requires_grad_()
    expected = functional.cross_entropy(model.lm_head(model.model.norm(leaf)), labels, reduction="sum")
    grads = torch.autograd.grad(expected * factor, [leaf, model.model.norm.weight, model.lm_head.weight])
    torch.testing.assert_close(total[0], expected)
    (norm,), (lm_head,) = norm_weights(extra), extra.lm_head_weights
    for actual, grad in zip([dx, norm.view(regions[0]), lm_head.view(regions[1])], grads, strict=True):
        assert close(actual, grad)
    assert len(extra.head_weights) == (1 if tied else 2)
    assert not dx[[2, 11]].any()


def test_loss_in_bf16_sums_in_fp32_and_survives_large_logits() -> None:
    model = tiny_llama(torch.bfloat16)
    model.lm_head.weight.data.mul_(64)
    extra = bound_engine(model)
    x, labels = loss_case(torch.bfloat16)
    dx, total = torch.empty_like(x), torch.zeros(1)
    regions = head_regions(extra)
    Caller(Group(1).ranks()[0], extra)("loss", [x, labels], [dx], [total, *regions])
    leaf = x.clone().requires_grad_()
    logits = model.lm_head(model.model.norm(leaf)).float()
    expected = functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(total[0], expected)
    dx_expected, dw_expected = torch.autograd.grad(expected, [leaf, model.lm_head.weight])
    torch.testing.assert_close(dx, dx_expected, rtol=0.05, atol=0.05 * float(dx_expected.abs().max()))
    assert close(extra.lm_head_weights[0].view(regions[1]), dw_expected, 0.01)
    assert all(bool(torch.isfinite(region).all()) for region in regions)


def test_loss_of_ignored_rows_alone_is_zero() -> None:
    extra = bound_engine(tiny_llama())
    x, labels = loss_case(torch.float32)
    dx, total = torch.full_like(x, float("nan")), torch.zeros(1)
    regions = head_regions(extra)
    Caller(Group(1).ranks()[0], extra)("loss", [x, labels.fill_(-100)], [dx], [total, *regions])
    assert not (dx.any() or total.any() or any(region.any() for region in regions))


def test_loss_with_a_frozen_head_still_gives_dx() -> None:
    model = tiny_llama()
    x, labels = loss_case(torch.float32)
    results = []
    for trainable in (True, False):
        for module in (model.lm_head, model.model.norm):
            module.requires_grad_(trainable)
        extra = bound_engine(model)
        dx = torch.empty_like(x)
        Caller(Group(1).ranks()[0], extra)("loss", [x, labels], [dx], [torch.zeros(1), *head_regions(extra)])
        results.append(dx)
    assert torch.equal(*results)


@pytest.mark.parametrize("padding", [None, 3, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embedding_and_its_gradient(dtype: torch.dtype, padding: int | None) -> None:
    model = tiny_llama(dtype, pad_token_id=padding)
    extra = bound_engine(model)
    token_ids = torch.tensor([3, 7, 7, 0, 3, 39])
    x, dx = torch.empty(6, HIDDEN, dtype=dtype), torch.randn(6, HIDDEN).to(dtype)
    wgrad = torch.zeros(40 * HIDDEN)
    call = Caller(Group(1).ranks()[0], extra)
    positions = torch.arange(6)
    call("embed", [token_ids, positions], [x])
    call("embedBwd", [dx, token_ids, positions], [], [wgrad])
    expected = model.model.embed_tokens(token_ids)
    assert torch.equal(x, expected)
    (grad,) = torch.autograd.grad(expected, [model.model.embed_tokens.weight], dx)
    assert close(wgrad.view(40, HIDDEN), grad, 1e-6 if dtype == torch.float32 else 1e-2)
    assert bool(wgrad.view(40, HIDDEN)[3].any()) == (padding != 3)
    assert bool(wgrad.view(40, HIDDEN)[39].any()) == (padding != -1)


def test_emit_grads_hands_over_the_region() -> None:
    emitted: list[Tensor] = []
    extra = bound_engine(tiny_llama(), emit=emitted.append)
    region = torch.ones(5)
    Caller(Group(1).ranks()[0], extra)("emitGrads", [region])
    assert len(emitted) == 1
    assert emitted[0] is region


@pytest.mark.parametrize("kind", ["copy", "cast"])
def test_moves_pair_reads_with_writes(kind: str) -> None:
    reads = [torch.randn(4, 2), torch.randn(3)]
    writes = [torch.empty(4, 2, dtype=torch.float32), torch.empty(3)]
    Caller(Group(1).ranks()[0], None)(kind, reads, writes)
    assert all(torch.equal(read, write) for read, write in zip(reads, writes, strict=True))


@pytest.mark.parametrize(("quotient", "expected"), [(1.0, 2.0), (3.0, 6.0), (-0.5, -1.0)])
def test_rescale_multiplies_by_the_quotient(quotient: float, expected: float) -> None:
    extra = bound_engine(tiny_llama())
    extra.quotient = quotient
    views = [torch.full((3, 2), 2.0), torch.full((4,), 2.0)]
    Caller(Group(1).ranks()[0], extra)("rescale", [], [], views)
    assert all(bool((view == expected).all()) for view in views)


def test_load_batch_fills_the_tables_in_their_order() -> None:
    extra = bound_engine(tiny_llama())
    extra.batch = {name: torch.arange(4) + 10 * i for i, name in enumerate(("labels", "positions", "tokenIds"))}
    writes = [torch.empty(4, dtype=torch.int64) for _ in range(3)]
    Caller(Group(1).ranks()[0], extra)("loadBatch", [], writes)
    assert [int(write[0]) for write in writes] == [20, 10, 0]
