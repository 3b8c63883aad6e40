"""Debug mode: memory is poisoned when its life ends, never before, and no storage outlives its op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from fpdt.devices import CopyMode, create_runtime
from fpdt.errors import StorageLeakError
from fpdt.measure.memory import LiveBytes
from fpdt.measure.timing import Recorder
from fpdt.plan import Plan
from fpdt.run.context import Handler, OpContext
from fpdt.run.executor import Executor
from fpdt.testing.debug import DebugMode
from tests.plan_builder import PlanBuilder, View
from tests.test_executor import ORDERS, add_one, bound, copy_views, ring_plan, run


def debugged(
    plan: Plan,
    handlers: Mapping[str, Handler],
    *,
    poison: bool = False,
    tracker: LiveBytes | None = None,
    copy_mode: CopyMode = "eager",
    seed: int = 0,
) -> tuple[Executor, DebugMode]:
    runtime = create_runtime("cpu", plan.arenas, copy_mode=copy_mode, seed=seed)
    debug = DebugMode(plan, runtime, poison=poison, tracker=tracker)
    return Executor(plan, runtime, handlers, Recorder(runtime), debug), debug


def fill(context: OpContext) -> None:
    for view in (*context.writes, *context.accumulates):
        view.fill_(1)


def observe(executor: Executor, seen: list[set[str]], *names: str) -> Handler:
    """Notes which of the named buffers are poisoned when the op starts."""

    def handler(context: OpContext) -> None:
        seen.append({name for name in names if executor.buffer(name).isnan().any()})
        fill(context)

    return handler


def test_everything_is_poison_when_a_step_begins() -> None:
    plan = PlanBuilder().buffer("x", 4, scope="step").buffer("ids", 4, dtype="int64", pool="host").build()
    executor, _ = debugged(plan, {}, poison=True)
    executor.begin_step()
    assert executor.buffer("x").isnan().all()
    assert (executor.buffer("ids") < -(10**15)).all()


def test_a_section_buffer_ends_with_its_last_op_of_the_part() -> None:
    builder = PlanBuilder().buffer("a", 8).buffer("b", 8).part("layerForward")
    builder.op("zero", writes=[View("a", 0, 4), View("a", 4, 8)])
    builder.op("zero", [View("a", 0, 4)], [View("b", 0, 8)])
    builder.op("zero", [View("b", 0, 4)])
    seen: list[set[str]] = []
    handlers: dict[str, Handler] = {}
    executor, _ = debugged(builder.build(), {"zero": lambda context: handlers["zero"](context)}, poison=True)
    handlers["zero"] = observe(executor, seen, "a", "b")
    executor.begin_step()
    for _ in range(2):
        run(executor)
        assert executor.buffer("b").isnan().all()
    assert seen == [{"a", "b"}, {"b"}, {"a"}] * 2


@pytest.mark.parametrize(("copy_mode", "seed"), ORDERS)
def test_poison_waits_for_the_last_reader_on_any_stream(copy_mode: CopyMode, seed: int) -> None:
    handlers = {"fetch": copy_views, "cast": add_one, "offload": copy_views}
    executor, _ = debugged(ring_plan(), handlers, poison=True, copy_mode=copy_mode, seed=seed)
    executor.begin_step()
    x = executor.buffer("x")
    x.zero_()
    run(executor)
    assert executor.buffer("ring").isnan().all()
    assert x.isnan().all(), "x is not used after this part, the last of the micro-step"


def test_a_use_after_the_end_gives_nan() -> None:
    """Two parts share a section buffer, which dies between them."""
    builder = PlanBuilder(num_layers=2, segment_layers=2).buffer("a", 4).buffer("out", 4, scope="step")
    builder.part("layerForward", 0).op("zero", writes=[View("a", 0, 4)])
    builder.part("layerForward", 1).op("cast", [View("a", 0, 4)], [View("out", 0, 4)])
    builder.part("layerBackward", 0).op("zero", writes=[View("out", 0, 4)])
    executor, _ = debugged(builder.build(), {"zero": fill, "cast": copy_views}, poison=True)
    executor.begin_step()
    run(executor)
    run(executor, part=1, layer=1)
    assert executor.buffer("out").isnan().all()


def test_buffers_that_share_an_address_do_not_disturb_each_other() -> None:
    builder = PlanBuilder().buffer("a", 8).buffer("b", 8, offset=0).buffer("out", 8, scope="step")
    builder.part("layerForward").op("zero", writes=[View("a", 0, 8)])
    builder.op("cast", [View("a", 0, 8)], [View("out", 0, 8)])
    builder.op("zero", writes=[View("b", 0, 8)]).op("cast", [View("b", 0, 8)], [View("out", 0, 8)])
    builder.part("layerBackward").op("zero", writes=[View("out", 0, 1)])
    executor, _ = debugged(builder.build(), {"zero": fill, "cast": copy_views}, poison=True)
    executor.begin_step()
    run(executor)
    assert executor.buffer("out").tolist() == [1] * 8


def step_plan() -> Plan:
    builder = PlanBuilder(num_layers=2).buffer("x", 4, instances=3, scope="step").buffer("sum", 1, scope="step")
    builder.part("embedForward").op("zero", writes=[View("x", 0, 4), View("sum", 0, 1)])
    builder.part("layerForward").op("cast", [View("x", 0, 4, "segment")], [View("x", 0, 4, "segment", 1)])
    builder.part("lossForwardBackward").op("zero", [View("x", 0, 4, index=2)], [View("sum", 0, 1)])
    builder.part("lossForwardBackward").op("zero")
    builder.part("layerBackward").op("zero", [View("x", 0, 4, "segment")])
    return builder.build()


def test_step_buffers_end_with_the_last_part_that_uses_them() -> None:
    plan = step_plan()
    executor, _ = debugged(plan, {"zero": fill, "cast": copy_views}, poison=True)
    executor.begin_step()
    for _ in range(2):
        found = []
        for stage in plan.timeline():
            layer = stage.segment if stage.section.startswith("layer") else 0
            executor.run_part(stage.section, stage.part, segment=stage.segment, layer=layer, bound=bound())
            poisoned = [str(i) for i in range(3) if executor.buffer("x", i).isnan().all()]
            found.append((stage.section, "".join(poisoned), bool(executor.buffer("sum").isnan())))
        assert found[3:] == [
            ("lossForwardBackward", "2", False),
            ("lossForwardBackward", "2", True),
            ("layerBackward", "12", True),
            ("layerBackward", "012", True),
        ]
        assert [name for _, name, _ in found[:3]][-1] == ""


KEPT: list[Any] = []


def keeps_a_tensor(context: OpContext) -> None:
    KEPT.append(torch.ones(256) * 2)


def keeps_a_graph(context: OpContext) -> None:
    with torch.enable_grad():
        weight = torch.ones(64, requires_grad=True)
        KEPT.append((weight.exp() * 2).grad_fn)


def keeps_a_view(context: OpContext) -> None:
    KEPT.append(context.reads[0][:1])


def behaves(context: OpContext) -> None:
    with torch.enable_grad():
        weight = context.reads[0].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(weight.exp().sum(), weight)
    context.reads[0].copy_(gradient)


def leak_plan(kind: str) -> Plan:
    builder = PlanBuilder().buffer("x", 256).part("layerForward").op("zero")
    return builder.op(kind, [View("x", 0, 256)]).op("zero").build()


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (keeps_a_tensor, r"op 1 post of layerForward leaves 1 storages of 1024 bytes alive: 1024 bytes of aten.mul"),
        (keeps_a_graph, r"op 1 post of layerForward leaves \d storages"),
    ],
)
@pytest.mark.parametrize("copy_mode", ["eager", "random"])
def test_a_storage_that_outlives_its_op_is_an_error(handler: Handler, message: str, copy_mode: CopyMode) -> None:
    executor, _ = debugged(leak_plan("post"), {"post": handler, "zero": fill}, tracker=LiveBytes(), copy_mode=copy_mode)
    with pytest.raises(StorageLeakError, match=message):
        run(executor)
    KEPT.clear()


@pytest.mark.parametrize("handler", [behaves, keeps_a_view])
def test_what_dies_in_the_op_or_lives_in_the_arena_is_no_leak(handler: Handler) -> None:
    executor, _ = debugged(leak_plan("post"), {"post": handler, "zero": fill}, tracker=LiveBytes())
    run(executor)
    KEPT.clear()


def test_only_emit_grads_hands_tensors_on() -> None:
    executor, debug = debugged(leak_plan("emitGrads"), {"emitGrads": keeps_a_tensor, "zero": fill}, tracker=LiveBytes())
    run(executor)
    KEPT.clear()
    assert debug.scratch_by_kind["emitGrads"] == 2048


def test_gathered_weights_are_no_leak() -> None:
    plan = PlanBuilder().part("layerForward").op("gather").build()
    executor, _ = debugged(plan, {}, tracker=LiveBytes())
    callbacks = bound(gather=lambda slot: KEPT.append(torch.ones(64)))
    executor.run_part("layerForward", 0, segment=0, layer=0, bound=callbacks)
    KEPT.clear()


def test_scratch_is_the_peak_inside_the_op() -> None:
    def scratch(context: OpContext) -> None:
        first = context.reads[0] + 1
        second = first * 2
        del first
        context.reads[0].copy_(second[:256] + 1)

    def wide(context: OpContext) -> None:
        torch.empty(context.op.id * 256)

    tracker = LiveBytes()
    executor, debug = debugged(leak_plan("post"), {"post": scratch, "zero": wide}, tracker=tracker)
    with tracker:
        before: Tensor = torch.ones(4096)
        run(executor)
    del before
    assert debug.scratch_by_kind == {"post": 2048, "zero": 2048}
    assert debug.scratch_by_op == {("layerForward", 0): 0, ("layerForward", 1): 2048, ("layerForward", 2): 2048}
