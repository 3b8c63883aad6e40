"""Runs the executor on small plans: handlers that move and add one, weights that are always whole, a ring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from fpdt.devices import CopyMode, plan_runtime
from fpdt.measure.timing import Recorder
from fpdt.plan import Plan, Turn
from fpdt.run.context import Bound, Handler, OpContext
from fpdt.run.executor import Executor
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
