"""Kernels beside attention: each as exact as its plain twin, and what it makes inside as planned, to the byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fpdt.errors import PlanError
from fpdt.measure.memory import LiveBytes
from fpdt.models.fused import add_product, check_fused, require_fused
from fpdt.models.interpreter import LinkedCode
from fpdt.ops.loss import cross_entropy
from fpdt.ops.loss_in_place import cross_entropy_in_place
from fpdt.plan.nouns import PLAIN, FusedKernels
from fpdt.testing.fake_cuda.products import half_products
from tests.counted_work import Work
from tests.families import CASES, ROWS, Built, family_of, measure_codes
from tests.model_code import ask_planner
from tests.op_scratch import op_peak, op_views, op_work, run_op
from tests.tiny_models import FUSED

VOCAB = 500
LOSSES = ("loss", "lossWeighted", "lossOnly")
NAMES = ("llama", "gemma2", "cohere", "phi")
"""With a head of its own, tied and with a softcap, tied and with a scale, with a bias."""


# --- cross entropy -----------------------------------------------------------------------------------------------


def logits_and_labels(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, VOCAB, (40,), generator=generator)
    labels[[0, 7, 39]] = -100
    return (6 * torch.randn(40, VOCAB, generator=generator)).to(dtype), labels


def exact_entropy(logits: Tensor, labels: Tensor, factor: float, softcap: float | None) -> tuple[Tensor, Tensor]:
    leaf = logits.double().requires_grad_()
    bent = leaf if softcap is None else leaf * softcap
    losses = torch.nn.functional.cross_entropy(bent, labels, reduction="none")
    (gradients,) = torch.autograd.grad(losses.sum() * factor, [leaf])
    return losses.detach(), gradients


@pytest.mark.parametrize("block_bytes", [1, 5 * 4 * VOCAB, 1 << 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_losses_and_gradients_are_as_exact_as_the_plain_kernel_s(dtype: torch.dtype, block_bytes: int) -> None:
    logits, labels = logits_and_labels(dtype)
    exact_losses, exact_gradients = exact_entropy(logits, labels, 64.0, None)
    plain_losses, plain_gradients = cross_entropy(logits.clone(), labels, 64.0)
    gradients = logits.clone()
    losses = cross_entropy_in_place(gradients, labels, 64.0, None, None, block_bytes)
    pairs = ((losses, plain_losses, exact_losses), (gradients, plain_gradients, exact_gradients))
    for ours, plain, exact in pairs:
        assert ours.dtype == plain.dtype
        assert float((ours - exact).norm()) <= 1.1 * float((plain - exact).norm()) + 1e-6 * float(exact.norm())
    assert not losses[[0, 7, 39]].any() and not gradients[[0, 7, 39]].any()


def test_a_softcap_s_slope_is_in_the_gradients() -> None:
    raw, labels = logits_and_labels(torch.float64)
    leaf = raw.clone().requires_grad_()
    losses = torch.nn.functional.cross_entropy(5 * torch.tanh(leaf / 5), labels, reduction="sum")
    (expected,) = torch.autograd.grad(losses * 3, [leaf])
    bent = (raw / 5).tanh_()
    found = cross_entropy_in_place(bent, labels, 3.0, None, 5.0, 1 << 12)
    torch.testing.assert_close(found.sum(), losses.detach())
    torch.testing.assert_close(bent, expected)


def test_weights_multiply_losses_and_their_gradients() -> None:
    logits, labels = logits_and_labels(torch.float32)
    weights = torch.rand(40, generator=torch.Generator().manual_seed(1))
    expected, expected_gradients = cross_entropy(logits.clone(), labels, 3.0, weights)
    losses = cross_entropy_in_place(logits, labels, 3.0, weights, None, 1 << 12)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(logits, expected_gradients)


def test_logits_of_any_size_are_survived() -> None:
    """Far targets have a probability that fp32 cannot hold, and a loss all the same."""
    logits = torch.tensor([[300.0, 0.0, -300.0], [-3e4, 3e4, 0.0]], dtype=torch.bfloat16)
    losses = cross_entropy_in_place(logits, torch.tensor([2, 0]), 1.0, None, None, 1)
    assert losses.tolist() == [600.0, pytest.approx(6e4, rel=0.01)]
    assert logits.tolist() == [[1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]


# --- ops, as planned ---------------------------------------------------------------------------------------------


BLOCKS = (1, 3000, None)
"""A row each, some rows, as plans have it."""


@cache
def answers() -> Mapping[tuple[str, int | None], dict[str, Any]]:
    """The planner's, by family and size of a block; it starts once."""
    keys = [(name, block_bytes) for name in NAMES for block_bytes in BLOCKS]
    asked = [
        {"config": CASES[name][0], "dtype": "bfloat16", "rows": ROWS, **({} if size is None else {"blockBytes": size})}
        for name, size in keys
    ]
    return dict(zip(keys, ask_planner(asked), strict=True))


def planned(name: str, block_bytes: int | None, dtype: torch.dtype = torch.bfloat16) -> tuple[Built, Mapping[str, Any]]:
    answer = answers()[name, block_bytes]
    return Built(family_of(name, CASES[name][0], {"bfloat16": answer}), dtype), answer["ops"]


@pytest.mark.parametrize("block_bytes", BLOCKS)
@pytest.mark.parametrize("name", NAMES)
def test_scratch_of_ops_is_as_planned_to_the_byte(name: str, block_bytes: int | None) -> None:
    model, ops = planned(name, block_bytes)
    for kind in (*LOSSES, "merge"):
        assert (kind, op_peak(model.engine, kind, op_views(model, kind, ROWS))) == (kind, ops[kind]["temporaries"])


@pytest.mark.parametrize("name", NAMES)
def test_kernels_of_ops_are_as_planned(name: str) -> None:
    """But for those of the last norm and of a scale, which the plan leaves out of a loss."""
    model, ops = planned(name, 3000)
    head = model.engine.head
    for kind in (*LOSSES, "merge"):
        views = op_views(model, kind, ROWS)
        found = op_work(model.engine, kind, views).kernels
        if kind != "merge":
            found -= kernels_of_norm(model, kind, views)
            found -= (head.scale != 1) * (1 if kind == "lossOnly" else 2)
        assert (kind, found) == (kind, ops[kind]["kernels"])


def kernels_of_norm(model: Built, kind: str, views: list[Tensor]) -> int:
    work, x, region = Work(), views[0], model.region(model.family.parameters.num_head_elements)
    env = {"@x": x, "@dy": torch.zeros_like(x), "@dx": torch.zeros_like(x), "wgrad": region}
    with torch.no_grad(), work:
        model.engine.head.norm.run({"@x": x})
        if kind != "lossOnly":
            model.engine.head.norm_bwd.run(env)
    return work.kernels


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_of_a_model_are_the_plain_kernel_s(kind: str, name: str) -> None:
    """In fp32, with blocks of a few rows and tiles: they differ by rounding alone."""
    results = []
    for fused in (PLAIN, FUSED):
        model, _ = planned(name, None, torch.float32)
        engine = replace(model.engine, kernels=replace(model.engine.kernels, fused=fused), loss_factor=64.0)
        views = op_views(model, kind, ROWS)
        run_op(engine, kind, views, tiles=3)
        results.append(views)
    for ours, plain in zip(*reversed(results), strict=True):
        torch.testing.assert_close(ours, plain, rtol=3e-5, atol=3e-6 * float(plain.abs().max()))


# --- weight gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_bytes", [1, 1000, 1 << 20])
def test_products_block_by_block_are_the_whole_product(block_bytes: int) -> None:
    generator = torch.Generator().manual_seed(2)
    dy, x = (torch.randn(64, width, generator=generator).bfloat16() for width in (37, 48))
    whole, parts = torch.ones(37, 48), torch.ones(37, 48)
    add_product(whole, dy.t(), x, PLAIN)
    with LiveBytes() as live, live.scope() as scope:
        add_product(parts, dy.t(), x, FUSED.model_copy(update={"block_bytes": block_bytes}))
    torch.testing.assert_close(parts, whole, rtol=0.01, atol=1e-3)
    assert scope.peak_bytes == 2 * 48 * max(1, min(37, block_bytes // 96))


ADDMM = FUSED.model_copy(update={"weight_gradient": "addmm"})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_addmm_rounds_no_product_and_makes_nothing(dtype: torch.dtype) -> None:
    """Into a weight that lies somewhere in its region, and into some columns of one."""
    generator = torch.Generator().manual_seed(2)
    dy, x = (torch.randn(64, width, generator=generator).to(dtype) for width in (37, 48))
    exact = 1 + dy.double().t() @ x.double()
    for total in (torch.ones(5 + 37 * 48)[5:].view(37, 48), torch.ones(37, 60)[:, 6:54]):
        with half_products(), LiveBytes() as live, live.scope() as scope, Work() as work:
            add_product(total, dy.t(), x, ADDMM)
        torch.testing.assert_close(total.double(), exact, rtol=1e-5, atol=1e-5)
        assert (scope.peak_bytes, work.kernels) == (0, 1)


def test_addmm_runs_on_tensors_without_data() -> None:
    with FakeTensorMode(), half_products():
        total, factors = torch.zeros(8, 4), torch.zeros(6, 12, dtype=torch.bfloat16)
        add_product(total, factors[:, :8].t(), factors[:, 8:], ADDMM)
        assert total.shape == (8, 4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi"])
def test_codes_and_losses_by_addmm_cost_what_is_planned(name: str) -> None:
    """With weights as rows, as columns, and with biases."""
    asked = {"config": CASES[name][0], "dtype": "bfloat16", "rows": ROWS, "kernels": "weightGradient=addmm"}
    (answer,) = ask_planner([asked])
    model = Built(family_of(name, CASES[name][0], {"bfloat16": answer}), torch.bfloat16)
    with half_products():
        assert measure_codes(model, measured_bytes) == model.family.peaks["bfloat16"]
        found = measure_codes(model, counted_kernels)["layers"]
        peak = op_peak(model.engine, "loss", op_views(model, "loss", ROWS))
    planned_work = [{code: one["kernels"] for code, one in layer.items()} for layer in answer["work"]["layers"]]
    assert found == planned_work and peak == answer["ops"]["loss"]["temporaries"]


def measured_bytes(code: LinkedCode, views: Mapping[str, Tensor]) -> int:
    with torch.no_grad(), LiveBytes() as live, live.scope() as scope:
        code.run(dict(views))
    return scope.peak_bytes


def counted_kernels(code: LinkedCode, views: Mapping[str, Tensor]) -> int:
    work = Work()
    with torch.no_grad(), work:
        code.run(dict(views))
    return work.kernels


def test_a_worker_without_addmm_says_so() -> None:
    require_fused(FUSED, torch.device("cpu"))
    with half_products():
        require_fused(ADDMM, torch.device("cpu"))
    with pytest.raises(PlanError, match=r"'addmm' for weightGradient, which PyTorch .* does not have on cpu") as caught:
        require_fused(ADDMM, torch.device("cpu"))
    assert "--kernels weightGradient=blocks" in caught.value.hint and "2.11" in caught.value.hint


# --- elsewhere ---------------------------------------------------------------------------------------------------


def test_kernels_run_on_fake_tensors_with_the_same_scratch() -> None:
    def peak() -> int:
        logits, labels = torch.zeros(40, VOCAB, dtype=torch.bfloat16), torch.zeros(40, dtype=torch.int64)
        total, factor = torch.zeros(VOCAB, 16), torch.zeros(40, 16, dtype=torch.bfloat16)
        with LiveBytes() as live, live.scope() as scope:
            cross_entropy_in_place(logits, labels, 2.0, None, None, 1 << 14)
            add_product(total, logits.t(), factor, FUSED)
        return scope.peak_bytes

    with FakeTensorMode():
        fake = peak()
    assert fake == peak() > 0


def test_unknown_kernels_are_refused_by_name() -> None:
    check_fused(FUSED)
    check_fused(PLAIN)
    with pytest.raises(PlanError, match="the kernel 'triton' for rope, this worker has plain, addcmul") as caught:
        check_fused(FUSED.model_copy(update={"rope": "triton"}))
    assert caught.value.hint == "plan again"
    later = FusedKernels.model_validate({"blockBytes": 1, "norm": "liger"})
    with pytest.raises(PlanError, match="the kernel 'liger' for norm, this worker has plain"):
        check_fused(later)
