"""What the executor records of the ops it runs: seconds by kind, and single ops where they are asked for."""

from __future__ import annotations

import time

import pytest
from torch import Tensor

from fpdt.devices import CopyMode
from fpdt.run.context import OpContext
from tests.executor_runs import MOVES, copy_views, executor_for, ring_plan, run


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
