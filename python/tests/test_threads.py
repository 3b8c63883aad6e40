"""The CPU with the native copy engine: results, files, documents and errors, while threads sleep now and then."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fpdt.copies import CopyEngineError
from fpdt.devices import ThreadsRuntime, open_files, plan_runtime
from fpdt.devices.file_pool import FilePoolError
from fpdt.errors import PlanError, ScheduleError
from fpdt.run.context import OpContext
from fpdt.run.executor import Executor
from tests.device_plans import MASKED, disk_plan, program_plan
from tests.executor_runs import MOVES, Handlers, add_one, executor_for, nothing, ring_plan, run
from tests.plan_builder import PlanBuilder, View
from tests.test_disk_device import run_disk_plan

NO_COPIES: Handlers = {"cast": add_one, "copy": nothing}


def never(ctx: OpContext, *views: Any) -> None:
    raise AssertionError(f"Python launched {ctx.describe()}")


@pytest.mark.parametrize("seed", range(6))
def test_the_result_is_that_of_the_other_orders_and_python_launches_no_copy(seed: int) -> None:
    plan = ring_plan(num_chunks=12, num_layers=3)
    executor, runtime, _ = executor_for(plan, {"cast": add_one, "copy": never}, "threads", seed)
    x = executor.buffer("x")
    x.copy_(torch.arange(96).view(48, 2))
    for _ in range(3):
        run(executor, plan)
    assert torch.equal(x, torch.arange(96).view(48, 2) + 9.0)
    assert runtime.take_copied_bytes() == {"h2d": 9 * 384, "d2h": 9 * 384, "read": 0, "write": 0}
    assert runtime.take_copied_bytes()["h2d"] == 0
    runtime.close()


def test_every_mask_and_stream_comes_to_an_end() -> None:
    for program in (program_plan(MASKED), program_plan()):
        executor, runtime, _ = executor_for(program, {"zero": nothing, "toHeads": nothing, "copy": never}, "threads")
        run(executor, program)
        runtime.close()


def test_a_copy_that_python_launches_is_refused() -> None:
    plan = ring_plan()
    runtime = plan_runtime(plan, copy_mode="threads")

    def launch(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
        ctx.runtime.copy(writes[0], reads[0], ctx)

    recorder = runtime.make_recorder(plan.kind_names, 0)
    executor = Executor(plan, runtime, {"cast": launch, "copy": never, "emitGrads": nothing}, recorder)
    with pytest.raises(ScheduleError, match=r"op 1 cast of layerForward.* was launched by Python"):
        run(executor, plan)
    runtime.close()


@pytest.mark.parametrize("seed", range(4))
def test_what_goes_to_a_file_comes_back(seed: int, tmp_path: Path) -> None:
    found, copied = run_disk_plan(disk_plan(), tmp_path, "threads", seed)
    assert found == [1, 11, 21, 31, 2, 12, 22, 32]
    assert copied == dict.fromkeys(("h2d", "d2h", "read", "write"), 8 * 2800)


def test_a_failed_transfer_frees_every_thread_and_is_what_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    plan = disk_plan()
    runtime = plan_runtime(plan, copy_mode="threads", files=open_files(plan.header.pools, tmp_path))
    recorder = runtime.make_recorder(plan.kind_names, 0)
    executor = Executor(plan, runtime, {**MOVES, "emitGrads": nothing}, recorder)
    monkeypatch.setattr(os, "pwritev", broken)
    with pytest.raises(FilePoolError, match="Input/output error"):
        run(executor, plan)
    runtime.close()


def test_after_an_error_nothing_is_left_and_the_next_micro_step_is_right() -> None:
    plan, fails = ring_plan(num_chunks=8, num_layers=2), [True]

    def fail_once(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
        if ctx.op.id == 7 and fails:
            fails.pop()
            raise ValueError("no such weight")
        add_one(ctx, reads, writes)

    executor, runtime, _ = executor_for(plan, {"cast": fail_once, "copy": never}, "threads", 5)
    with pytest.raises(ValueError, match="no such weight") as caught:
        run(executor, plan)
    assert caught.value.__notes__[0].startswith("in op 7 cast of layerForward, layer 0")
    executor.buffer("x").zero_()
    run(executor, plan)
    assert bool((executor.buffer("x") == 2).all())
    runtime.close()


def test_a_plan_that_copies_what_is_not_one_block_is_refused() -> None:
    builder = PlanBuilder().buffer("x", 4, (2,)).buffer("h", 4, (3,), pool="host").section("one")
    builder.op("copy", [View("x", 0, 4)], [View("h", 0, 4)])
    plan = builder.call("embed forward").build()
    executor, runtime, _ = executor_for(plan, {"copy": never}, "threads")
    with pytest.raises(PlanError, match=r"one copies x\[0:4\) to h\[0:4\), which is not one block of bytes"):
        run(executor, plan)
    runtime.close()


def test_what_the_engine_finds_wrong_is_told_by_python() -> None:
    plan = ring_plan()

    def break_engine(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
        assert isinstance(runtime, ThreadsRuntime)
        runtime._engine.fail("the driver is gone")

    executor, runtime, _ = executor_for(plan, {"cast": break_engine, "copy": never}, "threads")
    with pytest.raises(CopyEngineError, match="native copies: the driver is gone") as caught:
        run(executor, plan)
    assert caught.value.hint == "the first error is the one to look at"
    runtime.close()
