"""The online merge of partial attention results, at its extremes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import pytest
import torch
from torch import Tensor

from fpdt.attention import merge_by_lerp, merge_partial

NO_KEY = float("-inf")
SHAPE = (2, 3)
Merge = Callable[[Tensor, Tensor, Tensor, Tensor], None]
KERNELS: Mapping[str, Merge] = {
    "plain": merge_partial,
    "lerp": partial(merge_by_lerp, block_bytes=1 << 20),
    "lerp, row by row": partial(merge_by_lerp, block_bytes=1),
}


@pytest.fixture(params=KERNELS)
def merge(request: pytest.FixtureRequest) -> Merge:
    return KERNELS[request.param]


def merged(merge: Merge, o: float, lse: float, o_part: float, lse_part: float) -> tuple[float, float]:
    """The merge of two constant results, as (o, lse)."""
    o_total, lse_total = torch.full((*SHAPE, 4), o), torch.full(SHAPE, lse)
    merge(o_total, lse_total, torch.full((*SHAPE, 4), o_part), torch.full(SHAPE, lse_part))
    for total in (o_total, lse_total):
        torch.testing.assert_close(total, total[0, 0].flatten()[0].expand_as(total), rtol=0, atol=0, equal_nan=True)
    return float(o_total[0, 0, 0]), float(lse_total[0, 0])


@pytest.mark.parametrize("gap", [-500.0, -100.0, 0.0, 100.0, 500.0])
def test_merge_survives_any_gap_between_lse(merge: Merge, gap: float) -> None:
    o, lse = merged(merge, 1.0, 0.0, 3.0, gap)
    weight = float(torch.sigmoid(torch.tensor(gap, dtype=torch.float64)))
    assert o == pytest.approx(1 + 2 * weight)
    assert lse == pytest.approx(max(gap, 0.0) if gap else math.log(2))


@pytest.mark.parametrize("lse", [-3e38, -80.0, 0.0, 90.0, 3e38])
def test_rows_without_a_key_on_one_side_leave_the_other_as_it_is(merge: Merge, lse: float) -> None:
    assert merged(merge, 2.5, lse, 0.0, NO_KEY) == pytest.approx((2.5, lse))
    assert merged(merge, 0.0, NO_KEY, 2.5, lse) == pytest.approx((2.5, lse))


def test_rows_without_a_key_on_both_sides_stay_so(merge: Merge) -> None:
    assert merged(merge, 0.0, NO_KEY, 0.0, NO_KEY) == (0.0, NO_KEY)


@pytest.mark.parametrize("position", range(4))
def test_nan_is_never_merged_away(merge: Merge, position: int) -> None:
    """Unwritten memory is NaN in debug runs: it must reach the result."""
    values = [1.0, 0.0, 1.0, 0.0]
    values[position] = float("nan")
    o, _ = merged(merge, *values)
    assert math.isnan(o)


def test_only_the_rows_concerned_are_touched(merge: Merge) -> None:
    o_total, lse_total = torch.ones(3, 1, 2), torch.tensor([[NO_KEY], [0.0], [NO_KEY]])
    o_total[[0, 2]] = 0
    merge(o_total, lse_total, torch.tensor([4.0, 0.0, 0.0])[:, None, None], torch.tensor([[1.0], [NO_KEY], [NO_KEY]]))
    assert o_total[:, 0, 0].tolist() == [4.0, 1.0, 0.0]
    assert lse_total[:, 0].tolist() == [1.0, 0.0, NO_KEY]


def test_bf16_parts_are_summed_in_fp32(merge: Merge) -> None:
    o_total, lse_total = torch.full((1, 1, 1), 256.0), torch.zeros(1, 1)
    merge(o_total, lse_total, torch.full((1, 1, 1), 258.0, dtype=torch.bfloat16), torch.zeros(1, 1))
    assert o_total.item() == pytest.approx(257.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_pass_is_as_exact_as_two(dtype: torch.dtype) -> None:
    """Many parts, one after the other, against fp64; measured: 1.0 to 1.1 times the plain kernel's error."""
    generator = torch.Generator().manual_seed(4)
    parts = [torch.randn(64, 4, 8, generator=generator).to(dtype) for _ in range(16)]
    numbers = [4 * torch.randn(64, 4, generator=generator) for _ in range(16)]
    share = torch.stack(numbers).double().softmax(0)[..., None]
    exact = (share * torch.stack(parts).double()).sum(0)
    errors = {}
    for name, merge in KERNELS.items():
        o, lse = torch.zeros(64, 4, 8), torch.full((64, 4), NO_KEY)
        for part, number in zip(parts, numbers, strict=True):
            merge(o, lse, part, number)
        torch.testing.assert_close(lse, torch.stack(numbers).logsumexp(0))
        errors[name] = float((o - exact).norm() / exact.norm())
    assert errors["lerp"] == errors["lerp, row by row"] <= 1.5 * errors["plain"] < 1e-6
