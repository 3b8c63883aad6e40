"""Debug mode: memory is poisoned when its life ends, never before, and no storage outlives its op."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from fpdt.devices import CopyMode, plan_runtime
from fpdt.errors import StorageLeakError
from fpdt.measure.memory import LiveBytes
from fpdt.plan import Plan
from fpdt.run.arena import Arena
from fpdt.run.context import Handler, OpContext
from fpdt.run.executor import Executor
from fpdt.testing.debug import DebugMode
from tests.executor_runs import MOVES, ORDERS, NoWeights, bound, copy_views, nothing, ring_plan, run, run_turns
from tests.plan_builder import PlanBuilder, View


def debugged(
    plan: Plan,
    handlers: Mapping[str, Handler],
    *,
    poison: bool = False,
    tracker: LiveBytes | None = None,
    copy_mode: CopyMode = "eager",
    seed: int = 0,
) -> tuple[Executor, DebugMode]:
    runtime = plan_runtime(plan, copy_mode=copy_mode, seed=seed)
    debug = DebugMode(plan, runtime, poison=poison, tracker=tracker)
    recorder = runtime.make_recorder(plan.kind_names, 0)
    return Executor(plan, runtime, debug.wrap({"emitGrads": nothing, **handlers}), recorder), debug


def fill(ctx: OpContext, *views: Any) -> None:
    groups = [view if isinstance(view, tuple) else (view,) for view in views]
    for view in groups[-1]:
        view.fill_(1)


class Observed:
    """Notes which of the named buffers are poisoned when an op starts."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self.executor: Executor | None = None
        self.seen: list[set[str]] = []

    def __call__(self, ctx: OpContext, *views: Any) -> None:
        assert self.executor is not None
        executor = self.executor
        self.seen.append({name for name in self._names if executor.buffer(name).isnan().any()})
        fill(ctx, *views)


def test_everything_is_poison_when_a_micro_step_begins() -> None:
    plan = PlanBuilder().buffer("x", 4, scope="step").buffer("ids", 4, dtype="int64", pool="host").build()
    executor, debug = debugged(plan, {}, poison=True)
    debug.begin_micro_step()
    assert executor.buffer("x").isnan().all()
    assert (executor.buffer("ids") < -(10**15)).all()


def test_a_call_buffer_ends_with_its_last_op_of_the_call() -> None:
    builder = PlanBuilder(num_layers=2).buffer("a", 8).buffer("b", 8).section("layerForward")
    builder.op("zero", writes=[View("a", 0, 4), View("a", 4, 8)])
    builder.op("cast", [View("a", 0, 4)], [View("b", 0, 8)])
    builder.op("cast", [View("b", 0, 4)], [View("b", 4, 8)])
    for layer in range(2):
        builder.call(f"layer {layer} forward")
    plan, observed = builder.build(), Observed("a", "b")
    executor, debug = debugged(plan, {"zero": observed, "cast": observed}, poison=True)
    observed.executor = executor
    debug.begin_micro_step()
    run(executor, plan)
    assert executor.buffer("b").isnan().all()
    assert observed.seen == [{"a", "b"}, {"b"}, {"a"}] * 2


@pytest.mark.parametrize(("copy_mode", "seed"), ORDERS)
def test_poison_waits_for_the_last_reader_on_any_stream(copy_mode: CopyMode, seed: int) -> None:
    plan = ring_plan(num_layers=2)
    executor, debug = debugged(plan, MOVES, poison=True, copy_mode=copy_mode, seed=seed)
    debug.begin_micro_step()
    x = executor.buffer("x")
    x.zero_()
    finished: list[bool] = []
    executor.begin_micro_step()
    for turn in plan.turns[:-1]:
        executor.run_turn(turn.module, turn.direction, turn.layer, bound())
        finished.append(bool(x.isnan().any()))
    assert not any(finished[:2])
    executor.finish(bound())
    assert executor.buffer("ring").isnan().all()
    assert x.isnan().all(), "x is not used after the second layer"


def test_a_use_after_the_end_gives_nan() -> None:
    """Two calls share a call buffer, which dies between them."""
    builder = PlanBuilder(num_layers=2).buffer("a", 4).buffer("out", 4, scope="step")
    builder.section("first").op("zero", writes=[View("a", 0, 4)]).call("layer 0 forward")
    builder.section("second").op("cast", [View("a", 0, 4)], [View("out", 0, 4)]).call("layer 1 forward")
    builder.section("third").op("zero", writes=[View("out", 0, 4)]).call("layer 1 backward")
    plan = builder.build()
    executor, debug = debugged(plan, {"zero": fill, "cast": copy_views_plain}, poison=True)
    debug.begin_micro_step()
    executor.begin_micro_step()
    for turn in plan.turns[:3]:
        executor.run_turn(turn.module, turn.direction, turn.layer, bound())
    assert executor.buffer("out").isnan().all()


def copy_views_plain(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
    writes[0].copy_(reads[0])


def test_buffers_that_share_an_address_do_not_disturb_each_other() -> None:
    builder = PlanBuilder().buffer("a", 8).buffer("b", 8, offset=0).buffer("out", 8, scope="step")
    builder.section("layerForward").op("zero", writes=[View("a", 0, 8)])
    builder.op("cast", [View("a", 0, 8)], [View("out", 0, 8)])
    builder.op("zero", writes=[View("b", 0, 8)]).op("cast", [View("b", 0, 8)], [View("out", 0, 8)])
    builder.call("layer 0 forward")
    builder.section("layerBackward").op("zero", writes=[View("out", 0, 1)]).call("layer 0 backward")
    plan = builder.build()
    executor, debug = debugged(plan, {"zero": fill, "cast": copy_views_plain}, poison=True)
    debug.begin_micro_step()
    executor.begin_micro_step()
    for turn in plan.turns[:2]:
        executor.run_turn(turn.module, turn.direction, turn.layer, bound())
    assert executor.buffer("out").tolist() == [1] * 8


def step_plan() -> Plan:
    builder = PlanBuilder(num_layers=2).buffer("x", 4, instances=3, scope="step").buffer("lossSum", 1, scope="step")
    builder.buffer("sum", 1, scope="step").section("embedForward")
    builder.op("zero", writes=[View("x", 0, 4), View("lossSum", 0, 1), View("sum", 0, 1)]).call("embed forward")
    builder.section("layerForward", "x").op("cast", [View("x", 0, 4, "x")], [View("x", 0, 4, "x", 1)])
    sums = [View("lossSum", 0, 1), View("sum", 0, 1)]
    builder.section("lossForward").op("cast", [View("x", 0, 4, index=2)] * 2, sums)
    builder.call("head forward")
    builder.section("layerBackward", "x").op("cast", [View("x", 0, 4, "x")], [View("x", 0, 4, "x")])
    for layer in range(2):
        builder.call(f"layer {layer} forward", "layerForward", [layer])
        builder.call(f"layer {layer} backward", "layerBackward", [layer])
    return builder.build()


def test_step_buffers_end_with_the_last_call_that_uses_them() -> None:
    plan = step_plan()
    executor, debug = debugged(plan, {"zero": fill, "cast": fill}, poison=True)
    for _ in range(2):
        debug.begin_micro_step()
        executor.begin_micro_step()
        found = []
        for turn in plan.turns[:-1]:
            executor.run_turn(turn.module, turn.direction, turn.layer, bound())
            poisoned = [str(i) for i in range(3) if executor.buffer("x", i).isnan().all()]
            sums = [bool(executor.buffer(name).isnan()) for name in ("lossSum", "sum")]
            found.append((turn.name, "".join(poisoned), *sums))
        executor.finish(bound())
        assert found == [
            ("embed forward", "12", False, False),
            ("layer 0 forward", "2", False, False),
            ("layer 1 forward", "", False, False),
            ("head forward", "2", False, True),
            ("head backward", "2", False, True),
            ("layer 1 backward", "12", False, True),
            ("layer 0 backward", "012", False, True),
            ("embed backward", "012", False, True),
        ]


KEPT: list[Any] = []


def keeps_a_tensor(ctx: OpContext, *views: Any) -> None:
    KEPT.append(torch.ones(256) * 2)


def keeps_a_graph(ctx: OpContext, *views: Any) -> None:
    with torch.enable_grad():
        weight = torch.ones(64, requires_grad=True)
        KEPT.append((weight.exp() * 2).grad_fn)


def keeps_a_view(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
    KEPT.append(reads[0][:1])


def behaves(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
    with torch.enable_grad():
        weight = reads[0].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(weight.exp().sum(), weight)
    writes[0].copy_(gradient)


def leak_plan(kind: str = "cast") -> Plan:
    builder = PlanBuilder().buffer("x", 256).section("layerForward").op("zero")
    views = [View("x", 0, 256)]
    (builder.op(kind, views) if kind == "emitGrads" else builder.op(kind, views, views)).op("zero")
    return builder.call("layer 0 backward" if kind == "emitGrads" else "layer 0 forward").build()


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (keeps_a_tensor, r"op 1 cast of layerForward leaves 1 storages of 1024 bytes alive: 1024 bytes of aten.mul"),
        (keeps_a_graph, r"op 1 cast of layerForward leaves \d storages"),
    ],
)
@pytest.mark.parametrize("copy_mode", ["eager", "random"])
def test_a_storage_that_outlives_its_op_is_an_error(handler: Handler, message: str, copy_mode: CopyMode) -> None:
    plan = leak_plan()
    executor, _ = debugged(plan, {"cast": handler, "zero": fill}, tracker=LiveBytes(), copy_mode=copy_mode)
    with pytest.raises(StorageLeakError, match=message):
        run(executor, plan)
    KEPT.clear()


@pytest.mark.parametrize("handler", [behaves, keeps_a_view])
def test_what_dies_in_the_op_or_lives_in_the_arena_is_no_leak(handler: Handler) -> None:
    plan = leak_plan()
    executor, _ = debugged(plan, {"cast": handler, "zero": fill}, tracker=LiveBytes())
    run(executor, plan)
    KEPT.clear()


def test_only_emit_grads_hands_tensors_on() -> None:
    plan = leak_plan("emitGrads")
    executor, debug = debugged(plan, {"emitGrads": keeps_a_tensor, "zero": fill}, tracker=LiveBytes())
    run(executor, plan)
    KEPT.clear()
    assert debug.scratch_by_kind["emitGrads"] == 2048


def test_gathered_weights_are_no_leak() -> None:
    class Made(NoWeights):
        def gather(self, layer: int) -> None:
            KEPT.append(torch.ones(64))

    builder = PlanBuilder().section("gather").op("gather").call("layer 0 backward", layer=0)
    plan = builder.section("release").op("release").call("layer 0 backward", layer=0).build()
    executor, _ = debugged(plan, {}, tracker=LiveBytes())
    run_turns(executor, plan.turns, bound(Made()))
    KEPT.clear()


def test_scratch_is_the_peak_inside_the_op() -> None:
    def scratch(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
        first = reads[0] + 1
        second = first * 2
        del first
        writes[0].copy_(second[:256] + 1)

    def wide(ctx: OpContext, writes: tuple[Tensor, ...]) -> None:
        torch.empty(ctx.op.id * 256)

    plan, tracker = leak_plan(), LiveBytes()
    executor, debug = debugged(plan, {"cast": scratch, "zero": wide}, tracker=tracker)
    with tracker:
        before: Tensor = torch.ones(4096)
        run(executor, plan)
    del before
    assert debug.scratch_by_kind == {"cast": 2048, "zero": 2048, "emitGrads": 0}
    found = {op: peak for (section, op), peak in debug.scratch_by_op.items() if section == "layerForward"}
    assert found == {0: 0, 1: 2048, 2: 2048}


def test_debug_mode_leaves_no_trace_where_it_is_off() -> None:
    plan = ring_plan()
    executor, debug = debugged(plan, {**MOVES, "copy": copy_views})
    debug.begin_micro_step()
    executor.buffer("x").zero_()
    run(executor, plan)
    assert (executor.buffer("x") == 1).all()
    assert debug.scratch_by_kind == {} and debug.scratch_by_op == {}


def test_a_fill_is_done_before_the_next_op_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    acts: list[str] = []
    plan = ring_plan()
    runtime = plan_runtime(plan)
    debug = DebugMode(plan, runtime, poison=True)
    monkeypatch.setattr(runtime, "synchronize", lambda: acts.append("synchronize"))
    monkeypatch.setattr(Arena, "poison", lambda *_: acts.append("fill"))
    handlers = debug.wrap(dict.fromkeys((*MOVES, "emitGrads"), lambda *_: acts.append("op")))
    run(Executor(plan, runtime, handlers, runtime.make_recorder(plan.kind_names, 0)), plan)
    assert "fill" in acts
    assert ("fill", "op") not in pairwise(acts) and ("op", "fill") not in pairwise(acts)
