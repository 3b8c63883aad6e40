"""The test at start of kernels beside attention: right ones pass in every dtype, planted wrong ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fpdt.attention import backend_named
from fpdt.attention import merge as merges
from fpdt.models import fused, norms, primitives
from fpdt.models.base import Kernels
from fpdt.models.link import Env, Link, Work
from fpdt.ops import loss_in_place
from fpdt.plan import Plan
from fpdt.plan.nouns import PLAIN
from fpdt.run.fused_cases import cases_of
from fpdt.run.fused_self_test import KernelError, check_fused_kernels
from fpdt.run.kernels import check_plan_kernels
from fpdt.testing.fake_cuda.products import half_products
from tests.hand_plan import HandPlan
from tests.tiny_models import FUSED

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ADDMM = FUSED.model_copy(update={"weight_gradient": "addmm"})
KINDS = "loss inplace, merge lerp, weightGradient blocks, norm vectornorm, rope addcmul, elementwise inplace"


def llama_plan(dtype: str = "float32") -> Plan:
    return HandPlan({"zero_optimization": {"stage": 0}}, dtype=dtype).build()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_right_kernels_pass_and_say_so(dtype: torch.dtype) -> None:
    line = check_fused_kernels(llama_plan(), FUSED, dtype, CPU)
    assert line is not None and "may be rounding" in line
    listed = line.partition("(")[2].partition(")")[0]
    assert set(listed.split(", ")) == set(KINDS.split(", "))


def test_plain_kernels_need_no_test() -> None:
    assert check_fused_kernels(llama_plan(), PLAIN, torch.float32, CPU) is None


def test_each_instruction_of_the_plan_is_tried_once() -> None:
    kinds = [case.kind for case in cases_of(llama_plan())]
    assert set(kinds) == {"loss", "merge", "weight_gradient", "norm", "rope", "elementwise"}
    assert kinds.count("norm") == 2 and kinds.count("rope") == 2


def a_twentieth_off(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *arguments: function(*arguments).mul_(1.05)


def wrong_inverse(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    n, inverse = norms._normalised(x, eps)
    return n, inverse * 1.05


def first_rows_alone(o: Tensor, lse: Tensor, o_part: Tensor, lse_part: Tensor, block_bytes: int) -> None:
    """Of the first block alone."""
    merges.merge_partial(o[:4], lse[:4], o_part[:4], lse_part[:4])


def first_block_alone(total: Tensor, left: Tensor, right: Tensor, kernels: Any) -> None:
    rows = slice(0, 4) if kernels.weight_gradient == "blocks" else slice(None)
    total[rows] += left[rows].to(total.dtype) @ right.to(total.dtype)


def without_the_total(total: Tensor, left: Tensor, right: Tensor, *, out_dtype: torch.dtype, out: Tensor) -> Tensor:
    return out.copy_(left.to(out_dtype) @ right.to(out_dtype))


def backwards(make: Callable[[Link], Work]) -> Callable[[Link], Work]:
    """What kernels that are not plain take from the wrong side."""

    def made(link: Link) -> Work:
        work = make(link)

        def spoilt(env: Env) -> None:
            if link.fused is not PLAIN:
                env[link.reads[1]] = env[link.reads[1]].neg()
            work(env)

        return spoilt

    return made


PLANTED: dict[str, tuple[Any, str, Any, str]] = {
    "a loss off": (
        loss_in_place,
        "cross_entropy_in_place",
        a_twentieth_off(loss_in_place.cross_entropy_in_place),
        "inplace for loss on cpu is wrong: losses",
    ),
    "an inverse off": (
        norms,
        "_normalised_in_place",
        wrong_inverse,
        "vectornorm for norm on cpu is wrong: result 0 of rms",
    ),
    "a block not merged": (merges, "merge_by_lerp", first_rows_alone, "lerp for merge on cpu is wrong: merged output"),
    "a block not added": (
        fused,
        "add_product",
        first_block_alone,
        "blocks for weightGradient on cpu is wrong: gradient of a weight",
    ),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_wrong_kernel_is_refused(fault: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, wrong, what = PLANTED[fault]
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(KernelError, match=f"the kernel {what}") as caught:
        check_fused_kernels(llama_plan(), FUSED, dtype, CPU)
    assert "rounding explains" in str(caught.value)
    assert caught.value.hint.startswith("plan with --kernels ") and "=plain" in caught.value.hint


@pytest.mark.parametrize(
    ("primitive", "kind"), [("rope", "rope"), ("ropeBwd", "rope"), ("activationBwd", "elementwise")]
)
def test_a_planted_wrong_primitive_is_refused(primitive: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table: Any = primitives.PRIMITIVES
    monkeypatch.setitem(table, primitive, backwards(table[primitive]))
    with pytest.raises(KernelError, match=rf"for {kind} on cpu is wrong: result 0 of {primitive}"):
        check_fused_kernels(llama_plan(), FUSED, torch.float32, CPU)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_weight_gradients_by_addmm_are_tested_too(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    with half_products():
        line = check_fused_kernels(llama_plan(), ADDMM, dtype, CPU)
        assert line is not None and "weightGradient addmm" in line
        monkeypatch.setattr(torch, "addmm", without_the_total)
        with pytest.raises(
            KernelError, match="the kernel addmm for weightGradient on cpu is wrong: gradient of a weight"
        ):
            check_fused_kernels(llama_plan(), ADDMM, dtype, CPU)


def test_a_kernel_that_does_not_run_is_named() -> None:
    """As older versions of PyTorch do, whose op does not add to fp32."""
    with pytest.raises(
        KernelError, match="the kernel addmm for weightGradient on cpu does not run: Could not"
    ) as caught:
        check_fused_kernels(llama_plan(), ADDMM, torch.bfloat16, CPU)
    assert "--kernels weightGradient=plain" in caught.value.hint


def test_a_plan_is_not_run_by_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    flash = backend_named("cpu_flash")
    kernels = Kernels(flash, flash, FUSED)
    attention, beside = check_plan_kernels(llama_plan(), kernels, CPU)
    assert attention.startswith("attention kernel cpu_flash") and beside.startswith("kernels beside attention on cpu")
    assert len(check_plan_kernels(llama_plan(), Kernels(flash, flash), CPU)) == 1
    monkeypatch.setattr(norms, "_normalised_in_place", wrong_inverse)
    with pytest.raises(KernelError, match="for norm on cpu is wrong"):
        check_plan_kernels(llama_plan(), kernels, CPU)
