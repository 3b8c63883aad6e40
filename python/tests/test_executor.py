"""The executor on plans of a few ops, with handlers that write down or compute something small."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
import torch

from fpdt.devices import CopyMode, CpuRuntime, create_runtime
from fpdt.errors import PlanError, ScheduleError
from fpdt.measure.timing import Recorder
from fpdt.plan import Plan
from fpdt.run.context import Bound, Handler, OpContext
from fpdt.run.executor import Executor
from tests.plan_builder import PlanBuilder, View

ORDERS: list[tuple[CopyMode, int]] = [("eager", 0), ("lazy", 0), ("random", 1), ("random", 2)]


def nothing(context: OpContext) -> None:
    del context


def bound(**callbacks: Callable[..., None]) -> Bound:
    calls: dict[str, Any] = {"gather": lambda slot: None, "release": lambda slot: None, "load_batch": lambda: None}
    return Bound(layers={}, extra=cast("Any", None), **{**calls, **callbacks})


def executor_for(
    plan: Plan, handlers: Mapping[str, Handler], copy_mode: CopyMode = "eager", seed: int = 0
) -> tuple[Executor, CpuRuntime, Recorder]:
    runtime = cast("CpuRuntime", create_runtime("cpu", plan.arenas, copy_mode=copy_mode, seed=seed))
    recorder = Recorder(runtime)
    return Executor(plan, runtime, handlers, recorder), runtime, recorder


def run(executor: Executor, section: str = "layerForward", part: int = 0, *, segment: int = 0, layer: int = 0) -> None:
    executor.run_part(section, part, segment=segment, layer=layer, bound=bound())


def copy_views(context: OpContext) -> None:
    for dst, src in zip(context.writes, context.reads, strict=True):
        context.runtime.copy(dst, src)


def add_one(context: OpContext) -> None:
    context.writes[0].copy_(context.reads[0] + 1)


def ring_plan(num_chunks: int = 6) -> Plan:
    """x on the host comes chunk by chunk through a ring of two slots, grows by one and goes back."""
    builder = PlanBuilder()
    builder.buffer("x", 4 * num_chunks, (2,), pool="host", scope="step").buffer("ring", 8, (2,))
    builder.part("layerForward")
    for chunk in range(num_chunks):
        rows, slot = View("x", 4 * chunk, 4 * chunk + 4), View("ring", 4 * (chunk % 2), 4 * (chunk % 2) + 4)
        fetch = 3 * chunk
        builder.op("fetch", [rows], [slot], waits=[fetch - 4] if chunk > 1 else [])
        builder.op("cast", [slot], [slot], waits=[fetch])
        builder.op("offload", [slot], [rows], waits=[fetch + 1])
    return builder.build()


@pytest.mark.parametrize(("copy_mode", "seed"), ORDERS)
def test_every_order_gives_the_same_result(copy_mode: CopyMode, seed: int) -> None:
    handlers = {"fetch": copy_views, "cast": add_one, "offload": copy_views}
    executor, runtime, _ = executor_for(ring_plan(), handlers, copy_mode, seed)
    x = executor.buffer("x")
    x.copy_(torch.arange(48).view(24, 2))
    for _ in range(3):
        run(executor)
    assert torch.equal(x, torch.arange(48).view(24, 2) + 3.0)
    assert runtime.take_copied_bytes() == {"h2d": 3 * 192, "d2h": 3 * 192}


def test_handlers_get_exactly_their_views() -> None:
    builder = PlanBuilder(num_layers=4, segment_layers=2)
    builder.buffer("x", 8, (3,), instances=3, scope="step").buffer("o", 8, (3,), instances=4, scope="step")
    builder.part("layerForward", 0).op("zero").part("layerForward", 1)
    reads, writes = [View("x", 0, 4, "segment")], [View("x", 4, 8, "segment", 1)]
    builder.op("post", reads, writes, [View("o", 1, 2, "layer"), View("o", 0, 8, index=1)], tokens=(7, 9))
    seen: list[OpContext] = []
    executor, runtime, _ = executor_for(builder.build(), {"post": seen.append, "zero": nothing})
    for segment in range(2):
        run(executor, part=1, segment=segment, layer=2 * segment + 1)
    (first, second) = seen
    assert first.op.tokens == (7, 9) and first.runtime is runtime
    assert first.reads[0].data_ptr() == executor.buffer("x", 0).data_ptr()
    assert second.writes[0].data_ptr() == executor.buffer("x", 2)[4:].data_ptr()
    assert second.accumulates[0].data_ptr() == executor.buffer("o", 3)[1:].data_ptr()
    assert [tuple(view.shape) for view in second.accumulates] == [(1, 3), (8, 3)]


def test_handlers_run_without_grad() -> None:
    modes: list[bool] = []
    plan = PlanBuilder().part("layerForward").op("pre").build()
    executor, _, _ = executor_for(plan, {"pre": lambda context: modes.append(torch.is_grad_enabled())})
    run(executor)
    assert modes == [False] and torch.is_grad_enabled()


@pytest.mark.parametrize(("copy_mode", "seed"), ORDERS)
def test_external_ops_are_the_engines(copy_mode: CopyMode, seed: int) -> None:
    builder = PlanBuilder(num_layers=2, segment_layers=2).buffer("x", 4)
    builder.part("layerBackward", 1).op("gather", layer_slot=0).op("post").op("fetch").op("release", layer_slot=0)
    builder.op("post").part("embedForward").op("loadBatch").op("post")
    calls: list[str] = []
    handlers: dict[str, Handler] = {
        "post": lambda context: calls.append("post"),
        "fetch": lambda context: calls.append("fetch"),
    }
    executor, _, recorder = executor_for(builder.build(), handlers, copy_mode, seed)
    callbacks = bound(
        gather=lambda slot: calls.append(f"gather {slot}"),
        release=lambda slot: calls.append(f"release {slot}"),
        load_batch=lambda: calls.append("load"),
    )
    recorder.begin_step()
    executor.run_part("embedForward", 0, segment=0, layer=0, bound=callbacks)
    executor.run_part("layerBackward", 0, segment=0, layer=1, bound=callbacks)
    assert [calls[i] for i in (0, 1, 2, 5, 6)] == ["load", "post", "gather 0", "release 0", "post"]
    assert sorted(calls[3:5]) == ["fetch", "post"]
    by_kind = recorder.end_step().by_kind
    assert {kind: item["count"] for kind, item in by_kind.items()} == {
        "loadBatch": 1,
        "post": 3,
        "gather": 1,
        "release": 1,
        "fetch": 1,
    }


def test_an_error_names_its_op_and_leaves_the_executor_usable() -> None:
    def fail(context: OpContext) -> None:
        raise ValueError("no such weight")

    plan = PlanBuilder().buffer("x", 4).part("layerForward").op("fetch").op("pre", [View("x", 0, 2)] * 2).build()
    executor, _, _ = executor_for(plan, {"pre": fail, "fetch": nothing}, "lazy")
    for _ in range(2):
        with pytest.raises(ValueError, match="no such weight") as caught:
            run(executor)
        assert caught.value.__notes__ == ["in op 1 pre of layerForward, layer 0: x[0:2) x[0:2)"]


def test_refuses_a_plan_it_has_no_handlers_for() -> None:
    plan = PlanBuilder().part("layerForward").op("pre").op("attn").op("gather").build()
    with pytest.raises(PlanError, match="no handler for the op kinds attn, pre") as caught:
        executor_for(plan, {})
    assert "same version" in caught.value.hint


def test_refuses_what_does_not_belong_together() -> None:
    plan = PlanBuilder(num_layers=2).part("layerForward").op("pre").part("stepEnd").op("reduce").build()
    executor, _, _ = executor_for(plan, {"pre": lambda context: run(executor)})
    with pytest.raises(ScheduleError, match="is part of layer 1, asked to run for layer 0"):
        run(executor, segment=1, layer=0)
    with pytest.raises(ScheduleError, match="parts do not nest"):
        run(executor)
    with pytest.raises(ScheduleError, match="stepEnd is external"):
        run(executor, "stepEnd")


@pytest.mark.parametrize("copy_mode", ["eager", "lazy", "random"])
def test_a_slow_handler_shows_under_its_kind_only(copy_mode: CopyMode) -> None:
    handlers = {"fetch": copy_views, "cast": add_one, "offload": lambda context: time.sleep(0.05)}
    executor, _, recorder = executor_for(ring_plan(2), handlers, copy_mode)
    recorder.begin_step()
    run(executor)
    time.sleep(0.1)
    with recorder.timed("reduce"):
        time.sleep(0.03)
    times = recorder.end_step()
    seconds = {kind: item["seconds"] for kind, item in times.by_kind.items()}
    assert 0.1 <= seconds["offload"] < 0.3
    assert 0.03 <= seconds["reduce"] < 0.1
    assert seconds["cast"] + seconds["fetch"] < 0.05
    assert 0.1 <= times.idle_seconds < 0.3
    assert sum(seconds.values()) + times.idle_seconds == pytest.approx(times.seconds, rel=0.01)


def test_op_records_say_what_ran_when() -> None:
    handlers = {"fetch": copy_views, "cast": add_one, "offload": copy_views}
    executor, _, recorder = executor_for(ring_plan(2), handlers)
    recorder.begin_step()
    run(executor)
    times = recorder.end_step()
    assert [(item.op, item.kind, item.stream, item.bytes) for item in times.ops[:3]] == [
        (0, "fetch", "h2d", 32),
        (1, "cast", "compute", 32),
        (2, "offload", "d2h", 32),
    ]
    starts = [item.start for item in times.ops]
    assert starts == sorted(starts) and starts[0] > 0
    assert {(item.section, item.layer) for item in times.ops} == {("layerForward", 0)}
    recorder.begin_step()
    assert recorder.end_step().ops == ()


class ScriptedClock:
    """A device clock that reads what the test says."""

    def __init__(self, *times: float) -> None:
        self._times = iter(times)

    def mark(self) -> float:
        return next(self._times)

    def seconds_between(self, start: float, end: float) -> float:
        return end - start

    def synchronize(self) -> None:
        pass


def test_nested_time_counts_once_and_overlap_is_not_idle() -> None:
    recorder = Recorder(ScriptedClock(0, 10, 11, 12, 14, 15, 17, 18, 20))
    recorder.begin_step()
    with recorder.timed("optimizerStep"), recorder.timed("reduce"):
        pass
    with recorder.timed("gather"):
        pass
    times = recorder.end_step()
    assert {kind: item["seconds"] for kind, item in times.by_kind.items()} == {
        "reduce": 2,
        "optimizerStep": 2,
        "gather": 1,
    }
    assert (times.seconds, times.idle_seconds) == (10, 1 + 2 + 2)
