"""The online merge of partial attention results, at its extremes."""

from __future__ import annotations

import math

import pytest
import torch

from fpdt.attention import merge_partial

NO_KEY = float("-inf")
SHAPE = (2, 3)


def merged(o: float, lse: float, o_part: float, lse_part: float) -> tuple[float, float]:
    """The merge of two constant results, as (o, lse)."""
    o_total, lse_total = torch.full((*SHAPE, 4), o), torch.full(SHAPE, lse)
    merge_partial(o_total, lse_total, torch.full((*SHAPE, 4), o_part), torch.full(SHAPE, lse_part))
    for total in (o_total, lse_total):
        torch.testing.assert_close(total, total[0, 0].flatten()[0].expand_as(total), rtol=0, atol=0, equal_nan=True)
    return float(o_total[0, 0, 0]), float(lse_total[0, 0])


@pytest.mark.parametrize("gap", [-500.0, -100.0, 0.0, 100.0, 500.0])
def test_merge_survives_any_gap_between_lse(gap: float) -> None:
    o, lse = merged(1.0, 0.0, 3.0, gap)
    weight = float(torch.sigmoid(torch.tensor(gap, dtype=torch.float64)))
    assert o == pytest.approx(1 + 2 * weight)
    assert lse == pytest.approx(max(gap, 0.0) if gap else math.log(2))


@pytest.mark.parametrize("lse", [-3e38, -80.0, 0.0, 90.0, 3e38])
def test_rows_without_a_key_on_one_side_leave_the_other_as_it_is(lse: float) -> None:
    assert merged(2.5, lse, 0.0, NO_KEY) == pytest.approx((2.5, lse))
    assert merged(0.0, NO_KEY, 2.5, lse) == pytest.approx((2.5, lse))


def test_rows_without_a_key_on_both_sides_stay_so() -> None:
    assert merged(0.0, NO_KEY, 0.0, NO_KEY) == (0.0, NO_KEY)


@pytest.mark.parametrize("position", range(4))
def test_nan_is_never_merged_away(position: int) -> None:
    """Unwritten memory is NaN in debug runs: it must reach the result."""
    values = [1.0, 0.0, 1.0, 0.0]
    values[position] = float("nan")
    o, _ = merged(*values)
    assert math.isnan(o)


def test_only_the_rows_concerned_are_touched() -> None:
    o_total, lse_total = torch.ones(3, 1, 2), torch.tensor([[NO_KEY], [0.0], [NO_KEY]])
    o_total[[0, 2]] = 0
    merge_partial(
        o_total, lse_total, torch.tensor([4.0, 0.0, 0.0])[:, None, None], torch.tensor([[1.0], [NO_KEY], [NO_KEY]])
    )
    assert o_total[:, 0, 0].tolist() == [4.0, 1.0, 0.0]
    assert lse_total[:, 0].tolist() == [1.0, 0.0, NO_KEY]


def test_bf16_parts_are_summed_in_fp32() -> None:
    o_total, lse_total = torch.full((1, 1, 1), 256.0), torch.zeros(1, 1)
    merge_partial(o_total, lse_total, torch.full((1, 1, 1), 258.0, dtype=torch.bfloat16), torch.zeros(1, 1))
    assert o_total.item() == pytest.approx(257.0)
