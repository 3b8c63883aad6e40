"""Arenas: one mapping per pool, views at the plan's addresses and nowhere else, honest counts of touched pages."""

from __future__ import annotations

import mmap

import pytest
import torch

from fpdt.errors import ArenaError
from fpdt.run.arena import Views, byte_range, mapped_arena
from tests.plan_builder import PlanBuilder

PAGE = mmap.PAGESIZE


def test_untouched_memory_costs_nothing() -> None:
    arena = mapped_arena("hbm", 1 << 34)
    assert arena.num_bytes == 1 << 34
    assert arena.touched_bytes() == 0


def test_touched_bytes_are_those_written_in_pages() -> None:
    arena, other = mapped_arena("hbm", 64 * PAGE), mapped_arena("host", 64 * PAGE)
    arena.view(3 * PAGE + 512, "float32", (PAGE // 4,), (1,)).fill_(1)
    assert arena.touched_bytes() == 2 * PAGE
    arena.view(3 * PAGE, "float32", (4,), (1,)).fill_(2)
    assert arena.touched_bytes() == 2 * PAGE
    assert other.touched_bytes() == 0


def test_an_empty_arena_can_be_made() -> None:
    arena = mapped_arena("host", 0)
    assert (arena.num_bytes, arena.touched_bytes()) == (0, 0)
    arena.poison()


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(-4, (1,), (1,)), (2, (1,), (1,)), (1024, (1,), (1,)), (512, (129,), (1,)), (0, (2, 2), (255, 2))],
)
def test_refuses_views_outside(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    with pytest.raises(ArenaError, match="not in the hbm arena of 1024 bytes"):
        mapped_arena("hbm", 1024).view(offset, "float32", shape, strides)


def test_views_share_bytes_but_not_version_counters() -> None:
    arena = mapped_arena("hbm", 1024)
    weight = torch.ones(4, requires_grad=True)
    first, second = arena.view(0, "float32", (4,), (1,)), arena.view(16, "float32", (4,), (1,))
    first.fill_(3)
    product = (weight * first).sum()
    second.fill_(5)
    product.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None and weight.grad.tolist() == [3, 3, 3, 3]
    assert arena.view(0, "float32", (8,), (1,)).tolist() == [3, 3, 3, 3, 5, 5, 5, 5]


def test_poison_is_nan_or_far_below_zero_in_every_dtype() -> None:
    arena = mapped_arena("hbm", 1024)
    arena.poison(512)
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        assert arena.view(512, dtype, (64,), (1,)).isnan().all()
    assert not arena.tensor[:512].any()
    assert (arena.view(512, "int64", (64,), (1,)) < -(10**15)).all()


def test_rows_are_at_the_plans_addresses_and_one_object() -> None:
    plan = PlanBuilder().buffer("pad", 100).buffer("o", 8, (4,), instances=4, scope="step").build()
    arena = mapped_arena("hbm", 1 << 14)
    views = Views(plan, {"hbm": arena})
    rows = views.rows(1, 3, 2, 5)
    assert rows.shape == (3, 4) and rows.is_contiguous()
    assert rows.data_ptr() - arena.tensor.data_ptr() == 512 + 3 * 512 + 2 * 16
    assert views.rows(1, 3, 2, 5) is rows
    assert views.whole("o", 1) is views.rows(1, 1, 0, 8)
    assert byte_range(plan.buffer("o"), 1) == (1024, 1024 + 128)


def test_rows_may_lie_further_apart_than_their_values() -> None:
    builder = PlanBuilder().buffer("wide", 4, (2,))
    builder.buffers[0]["strides"] = [10, 1]
    views = Views(builder.build(), {"hbm": mapped_arena("hbm", 512)})
    views.whole("wide").fill_(1)
    assert views.rows(0, 0, 2, 4).stride() == (10, 1)
    assert byte_range(builder.build().buffer("wide"), 0) == (0, 4 * (30 + 2))


def test_a_block_of_rows_lies_as_heads_first() -> None:
    """The second block of the second instance: 3 heads of 4 rows each, one head after the other."""
    builder = PlanBuilder().buffer("lse", 8, (3,), instances=2)
    builder.buffers[0] |= {"strides": [1, 4], "blockRows": 4}
    plan, arena = builder.build(), mapped_arena("hbm", 1024)
    view = Views(plan, {"hbm": arena}).rows(0, 1, 4, 8)
    assert view.shape == (4, 3) and view.t().is_contiguous()
    assert view.data_ptr() - arena.tensor.data_ptr() == 512 + 4 * 3 * 4
    assert byte_range(plan.buffer("lse"), 1) == (512, 512 + 8 * 3 * 4)
    with pytest.raises(ArenaError, match=r"rows \[0:8\) of lse are no block of 4"):
        Views(plan, {"hbm": arena}).whole("lse")


def test_names_a_buffer_that_does_not_exist() -> None:
    plan = PlanBuilder().buffer("o", 8).build()
    views = Views(plan, {"hbm": mapped_arena("hbm", 512)})
    with pytest.raises(KeyError, match="no buffer q; it has o"):
        views.whole("q")


def test_a_buffer_that_ends_behind_its_arena_is_refused() -> None:
    plan = PlanBuilder().buffer("o", 256).build()
    with pytest.raises(ArenaError, match="not in the hbm arena"):
        Views(plan, {"hbm": mapped_arena("hbm", 512)}).rows(0, 0, 0, 256)
