"""What the executor refuses, and what an error in a handler leaves behind."""

from __future__ import annotations

import pytest
from torch import Tensor

from fpdt.devices import CopyMode
from fpdt.errors import PlanError, ScheduleError
from fpdt.run.context import OpContext
from fpdt.run.executor import StaleBackwardError
from tests.executor_runs import NoWeights, bound, executor_for, nothing, run
from tests.plan_builder import PlanBuilder, View


def test_an_error_names_its_op_and_leaves_the_executor_usable() -> None:
    def fail(ctx: OpContext, *views: Tensor) -> None:
        raise ValueError("no such weight")

    builder = PlanBuilder().buffer("x", 4, instances=2).section("layerForward", "i").op("copy")
    builder.op("merge", [View("x", 0, 2), View("x", 0, 2, "i")], [], [View("x", 0, 2), View("x", 2, 4)])
    plan, weights = builder.call("layer 0 forward", args=[1], layer=0).build(), NoWeights()
    executor, _, _ = executor_for(plan, {"merge": fail, "copy": nothing}, "lazy")
    for _ in range(2):
        with pytest.raises(ValueError, match="no such weight") as caught:
            run(executor, plan, bound(weights))
        assert caught.value.__notes__ == ["in op 1 merge of layerForward(i=1), layer 0: x[0:2) x#i[0:2) x[0:2) x[2:4)"]
        assert weights.calls[-1] == "abandon"
        with pytest.raises(ScheduleError, match="head forward was asked for outside a micro-step"):
            executor.run_turn("head", "forward", None, bound())


@pytest.mark.parametrize("copy_mode", ["lazy", "random"])
def test_what_an_error_left_queued_never_runs(copy_mode: CopyMode) -> None:
    ran: list[str] = []

    def fail_once(ctx: OpContext, writes: tuple[Tensor, ...]) -> None:
        if len(ran) == 0:
            ran.append("failed")
            raise ValueError

    builder = PlanBuilder().buffer("x", 4).buffer("h", 4, pool="host").section("one")
    builder.op("zero", writes=[View("x", 0, 4)]).op("copy", [View("x", 0, 4)], [View("h", 0, 4)], waits=[0])
    plan = builder.call("embed forward").build()
    executor, _, _ = executor_for(plan, {"zero": fail_once, "copy": lambda ctx, *v: ran.append("copy")}, copy_mode)
    with pytest.raises(ValueError):
        run(executor, plan)
    run(executor, plan)
    assert ran == ["failed", "copy"]


def test_refuses_a_plan_it_has_no_handlers_for() -> None:
    builder = PlanBuilder().section("layerForward").op("zero").op("copy").section("gather").op("gather")
    with pytest.raises(PlanError, match="no handler for the op kinds copy, zero") as caught:
        executor_for(builder.build(), {})
    assert "same version" in caught.value.hint


def test_turns_run_in_the_programs_order_and_no_other() -> None:
    plan = PlanBuilder(num_layers=2).build()
    executor, _, _ = executor_for(plan, {})
    given = bound()
    with pytest.raises(ScheduleError, match="embed forward was asked for outside a micro-step"):
        executor.run_turn("embed", "forward", None, given)
    executor.begin_micro_step()
    executor.run_turn("embed", "forward", None, given)
    executor.run_turn("layer", "forward", 0, given)
    with pytest.raises(ScheduleError, match="layer 0 forward was asked for; the plan's next turn is layer 1 forward"):
        executor.run_turn("layer", "forward", 0, given)
    executor.run_turn("layer", "forward", 1, given)
    executor.run_turn("head", "forward", None, given)
    with pytest.raises(ScheduleError, match="layer 1 backward was asked for; the plan's next turn is head backward"):
        executor.run_turn("layer", "backward", 1, given)
    with pytest.raises(StaleBackwardError, match="a second forward before the backward of the first"):
        executor.run_turn("embed", "forward", None, given)
    with pytest.raises(ScheduleError, match="end was asked for; the plan's next turn is head backward"):
        executor.finish(given)
    for _ in range(2):
        run(executor, plan)
    executor.begin_micro_step()


def test_turns_do_not_nest() -> None:
    plan = PlanBuilder().section("layerForward").op("zero").call("layer 0 forward").build()
    executor, _, _ = executor_for(plan, {"zero": lambda ctx, writes: run(executor, plan)})
    executor.begin_micro_step()
    executor.run_turn("embed", "forward", None, bound())
    with pytest.raises(ScheduleError, match="while layer 0 forward runs; turns do not nest"):
        executor.run_turn("layer", "forward", 0, bound())
