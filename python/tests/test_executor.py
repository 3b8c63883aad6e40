"""The executor on plans of a few ops, with handlers that write down or compute something small."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor

from fpdt.devices import CopyMode
from fpdt.run.context import OpContext
from tests.executor_runs import MOVES, ORDERS, NoWeights, bound, executor_for, nothing, ring_plan, run
from tests.plan_builder import PlanBuilder, View


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
