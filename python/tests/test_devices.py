"""The CPU device: every order it runs is legal, and a missing wait shows in one of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fpdt.devices import CopyMode, _arena, _no_spans, create_runtime
from fpdt.errors import FpdtError
from fpdt.plan import Plan, Pool
from fpdt.run.context import OpContext
from tests.device_plans import MASKED, MODES, PROGRAM, program_plan
from tests.executor_runs import copy_views, executor_for, run
from tests.plan_builder import STREAMS, PlanBuilder, View

POOLS = [Pool(name="hbm", kind="device", bytes=512), Pool(name="host", kind="pinned", bytes=512)]


def order_of(plan: Plan, mode: CopyMode, seed: int = 0) -> list[tuple[str, int]]:
    """(section, op) as they ran."""
    order: list[tuple[str, int]] = []

    def note(ctx: OpContext, *views: Any) -> None:
        order.append((ctx.op.section.name, ctx.op.id))

    executor, _, _ = executor_for(plan, dict.fromkeys(("zero", "copy", "toHeads"), note), mode, seed)
    run(executor, plan)
    return order


def check_legal(plan: Plan, order: list[tuple[str, int]]) -> None:
    """Waits, each stream's own order, and entry masks."""
    place = {item: position for position, item in enumerate(order)}
    calls = [call for turn in plan.turns for call in turn.calls if call.section != "emit"]
    before: list[tuple[str, int, str]] = []
    for call in calls:
        section = plan.sections[call.section]
        assert len(section.ops) > 0
        for op in section.ops:
            mask = call.waits[STREAMS.index(op.stream)]
            earlier = [(name, number) for name, number, stream in before if stream == op.stream]
            earlier += [(name, number) for name, number, stream in before if mask >> STREAMS.index(stream) & 1]
            own = [(section.name, wait) for wait in op.waits]
            own += [(section.name, other.id) for other in section.ops[: op.id] if other.stream == op.stream]
            assert all(place[other] < place[section.name, op.id] for other in (*earlier, *own)), (op.id, order)
        before += [(section.name, op.id, op.stream) for op in section.ops]
    assert len(order) == len(before)


def test_eager_runs_in_plan_order() -> None:
    assert order_of(program_plan(), "eager") == [("section0", op) for op in range(len(PROGRAM))]


def test_lazy_runs_copies_when_a_wait_asks_for_them() -> None:
    order = [op for _, op in order_of(program_plan(), "lazy")]
    assert order == [0, 2, 4, 3, 1, 6, 5, 8, 9, 7]


def test_random_orders_are_legal_many_and_repeatable() -> None:
    plan = program_plan()
    orders = [order_of(plan, "random", seed) for seed in range(80)]
    for order in orders:
        check_legal(plan, order)
    assert len({tuple(order) for order in orders}) > 20
    assert order_of(plan, "random", 7) == orders[7]


@pytest.mark.parametrize("mode", MODES)
def test_entry_masks_hold_in_every_order(mode: CopyMode) -> None:
    plan = program_plan(MASKED)
    for seed in range(60):
        check_legal(plan, order_of(plan, mode, seed))


@pytest.mark.parametrize("mode", ["lazy", "random"])
def test_side_streams_go_on_after_their_turn(mode: CopyMode) -> None:
    """Without masks, copies of the first turn run after compute of the second; exchanges never do."""
    plan = program_plan([(["h", "x", "d"], {}), (["c", "h"], {})])
    orders = [order_of(plan, mode, seed) for seed in range(40)]
    late = [order.index(("section0", 2)) > order.index(("section1", 0)) for order in orders]
    assert any(late) and all(order.index(("section0", 1)) < order.index(("section1", 0)) for order in orders)


@pytest.mark.parametrize("mode", ["lazy", "random"])
def test_a_mask_holds_back_what_a_missing_one_lets_go(mode: CopyMode) -> None:
    masked = program_plan([(["h", "d"], {}), (["c", "h"], {"compute": ["d2h"]})])
    orders = [order_of(masked, mode, seed) for seed in range(40)]
    assert all(order.index(("section0", 1)) < order.index(("section1", 0)) for order in orders)


def test_missing_wait_changes_the_result_in_some_order() -> None:
    """A copy into a slot that compute still reads: right when run eagerly, caught by the other orders."""

    def result(mode: CopyMode, seed: int, waits: tuple[int, ...]) -> float:
        builder = PlanBuilder().buffer("a", 1, pool="host", instances=2, scope="step").buffer("slot", 1, scope="step")
        builder.buffer("total", 1, scope="step").section("one")
        builder.op("copy", [View("a", 0, 1)], [View("slot", 0, 1)])
        builder.op("cast", [View("slot", 0, 1)], [View("total", 0, 1)], waits=waits)
        builder.op("copy", [View("a", 0, 1, index=1)], [View("slot", 0, 1)], waits=[1])
        plan = builder.call("embed forward").build()

        def cast(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
            writes[0].copy_(reads[0])

        executor, _, _ = executor_for(plan, {"copy": copy_views, "cast": cast}, mode, seed)
        executor.buffer("slot").zero_()
        executor.buffer("a", 0).fill_(3)
        executor.buffer("a", 1).fill_(5)
        run(executor, plan)
        return float(executor.buffer("total"))

    orders: list[tuple[CopyMode, int]] = [("eager", 0), ("lazy", 0), *(("random", seed) for seed in range(8))]
    assert {result(mode, seed, (0,)) for mode, seed in orders} == {3.0}
    assert result("eager", 0, ()) == 3.0
    assert result("lazy", 0, ()) == 0.0
    assert {result("random", seed, ()) for seed in range(8)} == {0.0, 3.0}


def test_clock_goes_forward() -> None:
    runtime = create_runtime("cpu", POOLS)
    first, second = runtime.mark(), runtime.mark()
    runtime.synchronize()
    assert runtime.seconds_between(first, second) >= 0


def test_a_page_locked_arena_is_touched_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fpdt.run.arena._resident_bytes", pytest.fail)
    monkeypatch.setattr("fpdt.devices.host_arena._near_cpus", lambda _: frozenset())
    pool = next(pool for pool in POOLS if pool.kind == "pinned")
    assert _arena(pool, "cuda", 0, _no_spans).touched_bytes() == pool.bytes > 0


def test_unknown_device_is_refused() -> None:
    with pytest.raises(FpdtError, match="for device 'tpu'") as caught:
        create_runtime("tpu", POOLS)
    assert "cpu or cuda" in caught.value.hint


def test_alone_an_exchange_is_a_copy() -> None:
    runtime, out = create_runtime("cpu", POOLS), torch.zeros(4)
    runtime.all_to_all(out, torch.arange(4.0))
    assert out.tolist() == [0, 1, 2, 3]


def test_cuda_runtime_can_be_imported_without_cuda() -> None:
    from fpdt.devices.cuda import CudaRuntime

    assert not getattr(CudaRuntime, "__abstractmethods__", None)
