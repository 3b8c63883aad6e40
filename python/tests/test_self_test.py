"""The test of kernels at start: right ones pass in every dtype, planted wrong ones are refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fpdt.attention import AttentionConfig, AttentionError, Mask, backend_named
from fpdt.attention.base import MaskName
from fpdt.attention.self_test import Work, check_kernels
from fpdt.models.base import Kernels
from fpdt.run.kernels import check_plan_kernels, work_of
from tests.attention_cases import DTYPES, HALVES, case_id, on_cpu
from tests.hand_plan import HandPlan

CPU = torch.device("cpu")
EVERY: frozenset[tuple[MaskName, int | None]] = frozenset(
    {("full", None), ("square", None), ("rectangle", None), ("window", 20)}
)
WORK = Work(
    heads=4,
    kv_heads=2,
    head_dim=32,
    dtype=torch.float32,
    configs=frozenset({AttentionConfig(32**-0.5)}),
    masks=EVERY,
    tile=16,
    left_over=frozenset({0, 5}),
)


def work_for(name: str, dtype: torch.dtype) -> Work:
    masks = frozenset(one for one in EVERY if one[0] in backend_named(name).masks)
    return replace(WORK, dtype=dtype, masks=masks)


@pytest.mark.parametrize(("name", "dtype"), [(name, one) for name in DTYPES for one in DTYPES[name]], ids=case_id)
def test_right_kernels_pass_and_say_so(name: str, dtype: torch.dtype) -> None:
    with on_cpu(name):
        backend = backend_named(name)
        line = check_kernels(backend, backend, work_for(name, dtype), CPU)
    assert line.startswith(f"attention kernel {name} on cpu agrees with the reference (masks: full, ")
    assert "may be rounding" in line


@pytest.mark.parametrize("scale", [1.0, 0.01])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_scores_are_neither_flat_nor_sharp_whatever_the_scale(scale: float, softcap: float | None) -> None:
    backend = backend_named("reference")
    configs = frozenset({AttentionConfig(scale, softcap), AttentionConfig(0.1, softcap)})
    check_kernels(backend, backend, replace(WORK, configs=configs, dtype=torch.bfloat16), CPU)


class Wrong:
    """A kernel with one thing wrong: in what it is given, or in what it gives."""

    name = "wrong"
    masks = backend_named("reference").masks
    softcap = True

    def __init__(self, given: Callable[..., Any] | None = None, gives: Callable[..., Any] | None = None) -> None:
        self._inner = backend_named("reference")
        self._given = given or (lambda kind, *arguments: arguments)
        self._gives = gives or (lambda kind, *results: results)

    def require(self, device: torch.device) -> None: ...

    def forward(self, *arguments: Any, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        o, lse = self._gives("forward", *self._inner.forward(*self._given("forward", *arguments)))
        return o, lse

    def backward(self, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        dq, dk, dv = self._gives("backward", *self._inner.backward(*self._given("backward", *arguments)))
        return dq, dk, dv


def scaled(factor: float) -> Callable[..., Any]:
    def given(kind: str, *arguments: Any) -> tuple[Any, ...]:
        config = next(one for one in arguments if isinstance(one, AttentionConfig))
        wrong = AttentionConfig(config.scale * factor, config.softcap)
        return tuple(wrong if one is config else one for one in arguments)

    return given


def unmasked(kind: str, *arguments: Any) -> tuple[Any, ...]:
    return tuple(Mask("full") if isinstance(one, Mask) and one.kind == "causal" else one for one in arguments)


def wider(kind: str, *arguments: Any) -> tuple[Any, ...]:
    return tuple(
        Mask("window", one.window + 1) if isinstance(one, Mask) and one.window is not None else one for one in arguments
    )


def forward_alone(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    return lambda kind, *results: change(*results) if kind == "forward" else results


def backward_alone(change: Callable[..., Any]) -> Callable[..., Any]:
    return lambda kind, *results: change(*results) if kind == "backward" else results


def own_lse(kind: str, *arguments: Any) -> tuple[Any, ...]:
    """Backward with the lse of its own keys instead of the one that it is given."""
    if kind == "forward":
        return arguments
    do, q, k, v, o, _, *place = arguments
    return (do, q, k, v, o, backend_named("reference").forward(q, k, v, *place)[1], *place)


def heads_dealt_out(kind: str, *arguments: Any) -> tuple[Any, ...]:
    """Query head j with key head j modulo their number."""
    first = 0 if kind == "forward" else 1
    k = arguments[first + 1]
    order = torch.arange(4).reshape(-1, k.shape[1]).t().reshape(-1)
    changed = list(arguments)
    changed[first] = arguments[first][:, order]
    return tuple(changed)


ROW = torch.tensor([0])
PLANTED: dict[str, tuple[Wrong, str]] = {
    "scale off": (Wrong(given=scaled(1.05)), "o under the mask full"),
    "no scale": (Wrong(given=scaled(32**0.5)), "o under the mask full"),
    "lse in powers of two": (Wrong(gives=forward_alone(lambda o, lse: (o, lse / math.log(2)))), "lse under"),
    "lse a hundredth off": (Wrong(gives=forward_alone(lambda o, lse: (o, lse + 0.01))), "lse under"),
    "lse read as rows first": (
        Wrong(gives=forward_alone(lambda o, lse: (o, lse.t().contiguous().view(lse.shape)))),
        "lse under",
    ),
    "o of other heads": (Wrong(gives=forward_alone(lambda o, lse: (o.flip(1), lse))), "o under"),
    "o transposed": (
        Wrong(gives=forward_alone(lambda o, lse: (o.transpose(0, 1).contiguous().view(o.shape), lse))),
        "o under",
    ),
    "nothing written": (Wrong(gives=forward_alone(lambda o, lse: (o * float("nan"), lse))), "o under"),
    "no mask": (Wrong(given=unmasked), "o under the mask rectangle"),
    "a window one too wide": (Wrong(given=wider), "o under the mask window"),
    "heads in other groups": (Wrong(given=heads_dealt_out), "o under"),
    "dk and dv exchanged": (Wrong(gives=backward_alone(lambda dq, dk, dv: (dq, dv, dk))), "dk under"),
    "dq without scale": (Wrong(gives=backward_alone(lambda dq, dk, dv: (dq * 32**0.5, dk, dv))), "dq under"),
    "dv of one group": (Wrong(gives=backward_alone(lambda dq, dk, dv: (dq, dk, dv.flip(1)))), "dv under"),
    "backward by its own lse": (Wrong(given=own_lse), "dq under"),
    "a row forgotten": (Wrong(gives=backward_alone(lambda dq, dk, dv: (dq.index_fill(0, ROW, 0), dk, dv))), "dq under"),
}


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_wrong_kernel_is_refused(fault: str, dtype: torch.dtype) -> None:
    wrong, what = PLANTED[fault]
    with pytest.raises(AttentionError, match=rf"attention kernel wrong on cpu is wrong: {what}") as caught:
        check_kernels(wrong, wrong, replace(WORK, dtype=dtype), CPU)
    assert "from the reference, rounding explains" in str(caught.value)
    assert "--attention reference" in caught.value.hint


def test_the_one_of_two_kernels_that_is_wrong_is_named() -> None:
    right, wrong = backend_named("reference"), PLANTED["dk and dv exchanged"][0]
    with pytest.raises(AttentionError, match="kernel wrong on cpu is wrong: dk"):
        check_kernels(right, wrong, WORK, CPU)
    assert check_kernels(wrong, right, WORK, CPU).startswith("attention kernel wrong and reference on cpu agrees")


def test_the_work_is_the_plans() -> None:
    hand = HandPlan({"zero_optimization": {"stage": 0}}, seq_len=100, num_chunks=2)
    found = work_of(hand.build(), 16)
    assert (found.heads, found.kv_heads, found.head_dim) == (4, 2, hand.head_dim)
    assert found.dtype == torch.float32 and [one.scale for one in found.configs] == pytest.approx([hand.head_dim**-0.5])
    assert found.masks == {("square", None), ("full", None)}
    assert found.left_over == {50 % 16}
    hand.attributes[hand.full] = {"mask": {"kind": "window", "window": 7}}
    assert ("window", 7) in work_of(hand.build(), 16).masks


def test_a_plan_is_not_run_by_a_wrong_kernel() -> None:
    plan = HandPlan({"zero_optimization": {"stage": 0}}).build()
    right, wrong = backend_named("cpu_flash"), PLANTED["scale off"][0]
    assert "cpu_flash on cpu agrees" in check_plan_kernels(plan, Kernels(right, right), CPU)[0]
    with pytest.raises(AttentionError, match="kernel wrong on cpu is wrong"):
        check_plan_kernels(plan, Kernels(wrong, right), CPU)
    with pytest.raises(AttentionError, match="'cudnn' runs on cuda, not on cpu"):
        check_plan_kernels(plan, Kernels(backend_named("cudnn"), right), CPU)
