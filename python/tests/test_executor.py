"""The executor on plans of a few ops, with handlers that write down or compute something small."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from fpdt.devices import CopyMode, plan_runtime
from fpdt.errors import PlanError, ScheduleError
from fpdt.measure.timing import Recorder
from fpdt.plan import Plan, Turn
from fpdt.run.context import Bound, Handler, OpContext
from fpdt.run.executor import Executor, StaleBackwardError
from fpdt.run.runtime import Runtime
from tests.plan_builder import PlanBuilder, View

ORDERS: list[tuple[CopyMode, int]] = [("eager", 0), ("lazy", 0), *(("random", seed) for seed in range(1, 5))]
Handlers = Mapping[str, Handler]


def nothing(ctx: OpContext, *views: Any) -> None:
    del ctx, views


class NoWeights:
    """Weights that are always whole; writes down what is asked."""

    def __init__(self, calls: list[str] | None = None) -> None:
        self.calls: list[str] = [] if calls is None else calls

    def gather(self, layer: int) -> None:
        self.calls.append(f"gather {layer}")

    def acquire(self, layer: int) -> None:
        self.calls.append(f"acquire {layer}")

    def release(self, layer: int) -> None:
        self.calls.append(f"release {layer}")

    def abandon(self) -> None:
        self.calls.append("abandon")

    def check_others(self, layer: int) -> None: ...


def bound(weights: NoWeights | None = None, num_layers: int = 4) -> Bound:
    return Bound(
        layers=cast("Any", [f"layer {i}" for i in range(num_layers)]),
        engine=cast("Any", "engine"),
        weights=weights or NoWeights(),
        optimizer_step=lambda: None,
    )


def executor_for(
    plan: Plan, handlers: Handlers, copy_mode: CopyMode = "eager", seed: int = 0, record_layers: int = 0
) -> tuple[Executor, Runtime, Recorder]:
    runtime = plan_runtime(plan, copy_mode=copy_mode, seed=seed)
    recorder = runtime.make_recorder(plan.kind_names, record_layers)
    return Executor(plan, runtime, {"emitGrads": nothing, **handlers}, recorder), runtime, recorder


def run_turns(executor: Executor, turns: tuple[Turn, ...], given: Bound | None = None) -> None:
    """All turns of a micro-step, in order, and the end of the step."""
    given = given or bound()
    executor.begin_micro_step()
    for turn in turns[:-1]:
        executor.run_turn(turn.module, turn.direction, turn.layer, given)
    executor.finish(given)


def run(executor: Executor, plan: Plan, given: Bound | None = None) -> None:
    run_turns(executor, plan.turns, given)


def copy_views(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
    for dst, src in zip(writes, reads, strict=True):
        ctx.runtime.copy(dst, src, ctx)


def add_one(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
    writes[0].copy_(reads[0] + 1)


MOVES: Handlers = {"copy": copy_views, "cast": add_one}


def ring_plan(num_chunks: int = 6, num_layers: int = 1, masks: bool = True) -> Plan:
    """x on the host comes chunk by chunk through a ring of two slots, grows by one and goes back; once a layer."""
    builder = PlanBuilder(num_layers=num_layers)
    builder.buffer("x", 4 * num_chunks, (2,), pool="host", scope="step").buffer("ring", 8, (2,))
    builder.section("layerForward")
    for chunk in range(num_chunks):
        rows, slot = View("x", 4 * chunk, 4 * chunk + 4), View("ring", 4 * (chunk % 2), 4 * (chunk % 2) + 4)
        fetch = 3 * chunk
        builder.op("copy", [rows], [slot], waits=[fetch - 4] if chunk > 1 else [])
        builder.op("cast", [slot], [slot], waits=[fetch])
        builder.op("copy", [slot], [rows], waits=[fetch + 1])
    entry = {"h2d": ["compute", "d2h"], "compute": ["d2h"]} if masks else {}
    for layer in range(num_layers):
        builder.call(f"layer {layer} forward", layer=layer, waits=entry)
    return builder.build()


@pytest.mark.parametrize(("copy_mode", "seed"), ORDERS)
def test_every_order_gives_the_same_result(copy_mode: CopyMode, seed: int) -> None:
    plan = ring_plan(num_layers=3)
    executor, runtime, _ = executor_for(plan, MOVES, copy_mode, seed)
    x = executor.buffer("x")
    x.copy_(torch.arange(48).view(24, 2))
    for _ in range(3):
        run(executor, plan)
    assert torch.equal(x, torch.arange(48).view(24, 2) + 9.0)
    assert runtime.take_copied_bytes() == {"h2d": 9 * 192, "d2h": 9 * 192, "read": 0, "write": 0}
    assert runtime.take_copied_bytes()["h2d"] == 0


def test_a_missing_mask_shows_in_some_order() -> None:
    """The next layer's fetch overtakes the offload of the one before, which is left over from an earlier turn."""
    plan = ring_plan(num_layers=3, masks=False)
    results = set()
    more: list[tuple[CopyMode, int]] = [("random", seed) for seed in range(5, 25)]
    for copy_mode, seed in (*ORDERS, *more):
        executor, _, _ = executor_for(plan, MOVES, copy_mode, seed)
        executor.buffer("x").zero_()
        run(executor, plan)
        results.add((copy_mode, bool((executor.buffer("x") == 3).all())))
    assert ("eager", True) in results
    assert ("lazy", False) in results and ("random", False) in results


def test_handlers_get_exactly_their_views() -> None:
    builder = PlanBuilder(num_layers=2)
    builder.buffer("x", 8, (3,), instances=3, scope="step").buffer("o", 8, (3,), instances=4, scope="step")
    builder.section("layerForward", "x", "o")
    reads, writes = [View("x", 0, 4, "x"), View("o", 1, 2, "o")], [View("x", 4, 8, "x", 1)]
    builder.op("post", reads, writes, tokens=(7, 9)).op("zero", writes=[View("o", 0, 8, index=1)])
    builder.op("merge", [View("o", 0, 4), View("o", 4, 8)], [], [View("x", 0, 4), View("x", 4, 8)])
    for layer in range(2):
        builder.call(f"layer {layer} forward", args=[layer, 2 * layer], layer=layer)
    plan, seen = builder.build(), list[tuple[Any, ...]]()

    def note(ctx: OpContext, *views: Any) -> None:
        seen.append((ctx.op.kind, ctx.op.tokens, ctx.layer, *views))

    executor, runtime, _ = executor_for(plan, {"post": note, "zero": note, "merge": note})
    run(executor, plan)
    first, zero, merge, second, zero_again, merge_again = seen
    assert first[:3] == ("post", (7, 9), "layer 0") and second[2] == "layer 1"
    pointers = [executor.buffer("x", 0), executor.buffer("o", 0)[1:], executor.buffer("x", 1)[4:]]
    assert [view.data_ptr() for view in first[3:]] == [view.data_ptr() for view in pointers]
    pointers = [executor.buffer("x", 1), executor.buffer("o", 2)[1:], executor.buffer("x", 2)[4:]]
    assert [view.data_ptr() for view in second[3:]] == [view.data_ptr() for view in pointers]
    assert [tuple(view.shape) for view in first[3:]] == [(4, 3), (1, 3), (4, 3)]
    assert len(zero) == 4 and isinstance(zero[3], tuple) and zero[3][0] is zero_again[3][0]
    assert len(merge) == 7 and all(a is b for a, b in zip(merge[3:], merge_again[3:], strict=True))
    assert runtime.arenas.keys() == {"hbm", "host"}


@pytest.mark.parametrize(("copy_mode", "seed"), ORDERS)
def test_an_op_keeps_its_calls_views_and_layer_whenever_it_runs(copy_mode: CopyMode, seed: int) -> None:
    builder = PlanBuilder(num_layers=3).buffer("x", 2, instances=3, scope="step")
    builder.buffer("h", 2, pool="host", instances=3, scope="step").section("layerForward", "x")
    x, h = View("x", 0, 2, "x"), View("h", 0, 2, "x")
    builder.op("zero", writes=[x]).op("copy", [x], [h], waits=[0])
    for layer in range(3):
        builder.call(f"layer {layer} forward", args=[layer], layer=layer)
    plan = builder.build()

    def fill(ctx: OpContext, writes: tuple[Tensor, ...]) -> None:
        writes[0].fill_(float(str(ctx.layer)[-1]))

    def move(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
        writes[0].copy_(reads[0] + 10 * float(str(ctx.layer)[-1]))

    executor, _, _ = executor_for(plan, {"zero": fill, "copy": move}, copy_mode, seed)
    run(executor, plan)
    assert [executor.buffer("h", i)[0].item() for i in range(3)] == [0, 11, 22]


def test_handlers_run_without_grad() -> None:
    modes: list[bool] = []
    plan = PlanBuilder().section("layerForward").op("zero").call("layer 0 forward").build()
    executor, _, _ = executor_for(plan, {"zero": lambda ctx, writes: modes.append(torch.is_grad_enabled())})
    run(executor, plan)
    assert modes == [False] and torch.is_grad_enabled()


@pytest.mark.parametrize(("copy_mode", "seed"), ORDERS)
def test_weights_of_rebuilt_layers_come_and_go(copy_mode: CopyMode, seed: int) -> None:
    """Gathered one call ahead, waited for by the first call that uses them, dropped after its ops."""
    builder = PlanBuilder(num_layers=2).buffer("x", 4, scope="step")
    builder.section("gather").op("gather").section("release").op("release").section("reduce").op("reduce")
    builder.section("rebuild").op("zero", writes=[View("x", 0, 4)]).op("toHeads", [], [])
    turn = "layer 1 backward"
    builder.call(turn, "gather", layer=0).call(turn, "rebuild", layer=1).call(turn, "rebuild", layer=0)
    builder.call(turn, "release", layer=0).call(turn, "rebuild", layer=1).call(turn, "reduce", owner="zero")
    plan, weights = builder.build(), NoWeights()
    handlers = {"zero": lambda ctx, writes: weights.calls.append(ctx.layer), "toHeads": nothing}
    executor, _, recorder = executor_for(plan, handlers, copy_mode, seed)
    recorder.begin_step()
    run(executor, plan, bound(weights))
    seen = [item for item in weights.calls if not item.startswith("acquire")]
    assert seen == ["gather 0", "layer 1", "layer 0", "release 0", "layer 1"]
    assert weights.calls.index("acquire 0") < weights.calls.index("layer 0")
    by_kind = recorder.end_step().by_kind
    assert {kind: item["count"] for kind, item in by_kind.items()} == {
        **{"zero": 3, "toHeads": 3, "gather": 1, "release": 1, "emitGrads": 4},
    }


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


@pytest.mark.parametrize("copy_mode", ["eager", "lazy", "random"])
def test_a_slow_handler_shows_under_its_kind_only(copy_mode: CopyMode) -> None:
    def slow(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
        time.sleep(0.05)

    plan = ring_plan(2)
    executor, _, recorder = executor_for(plan, {"copy": copy_views, "cast": slow}, copy_mode)
    recorder.begin_step()
    run(executor, plan)
    time.sleep(0.1)
    with recorder.timed("reduce"):
        time.sleep(0.03)
    times = recorder.end_step()
    seconds = {kind: item["seconds"] for kind, item in times.by_kind.items()}
    assert 0.1 <= seconds["cast"] < 0.3
    assert 0.03 <= seconds["reduce"] < 0.1
    assert seconds["copy"] < 0.05
    assert 0.1 <= times.idle_seconds < 0.3
    assert sum(seconds.values()) + times.idle_seconds == pytest.approx(times.seconds, rel=0.01)


@pytest.mark.parametrize("copy_mode", ["eager", "lazy"])
def test_op_records_of_one_layer_in_n_say_what_ran_when(copy_mode: CopyMode) -> None:
    plan = ring_plan(2, num_layers=3)
    executor, _, recorder = executor_for(plan, MOVES, copy_mode, record_layers=2)
    recorder.begin_step()
    run(executor, plan)
    times = recorder.end_step()
    mine = [item for item in times.ops if item.section == "layerForward"]
    assert {item.layer for item in mine} == {0, 2}
    first = sorted((item.op, item.kind, plan.streams[item.stream], item.bytes) for item in mine)[:6]
    assert first == [(0, "copy", "h2d", 32)] * 2 + [(1, "cast", "compute", 32)] * 2 + [(2, "copy", "d2h", 32)] * 2
    assert all(item.start > 0 and item.duration >= 0 for item in mine)
    assert times.by_kind["cast"]["count"] == 6
    recorder.begin_step()
    assert recorder.end_step().ops == ()


def test_no_records_unless_asked() -> None:
    plan = ring_plan(2)
    executor, _, recorder = executor_for(plan, MOVES)
    recorder.begin_step()
    run(executor, plan)
    assert recorder.end_step().ops == ()


def test_the_loop_makes_no_objects() -> None:
    """In eager mode nothing is allocated per op: what is alive after a turn is what was before."""
    builder = PlanBuilder(num_layers=2).buffer("x", 4).section("layerForward")
    for _ in range(500):
        builder.op("zero", writes=[View("x", 0, 4)])
    for layer in range(2):
        builder.call(f"layer {layer} forward")
    plan = builder.build()
    counts: list[int] = []

    def count(ctx: OpContext, writes: tuple[Tensor, ...]) -> None:
        if ctx.op.id in (100, 499):
            counts.append(len(gc.get_objects()))

    executor, _, _ = executor_for(plan, {"zero": count})
    gc.disable()
    try:
        run(executor, plan)
    finally:
        gc.enable()
    assert abs(counts[1] - counts[0]) < 20 and abs(counts[3] - counts[2]) < 20
