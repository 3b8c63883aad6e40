"""The CPU device with a pool in a file: what goes there comes back, in every order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fpdt.devices import CopyMode, open_files, plan_runtime
from fpdt.errors import ArenaError, FpdtError
from fpdt.plan import Plan
from fpdt.run.executor import Executor
from tests.device_plans import MODES, disk_plan
from tests.executor_runs import add_one, copy_views, executor_for, nothing, run


def run_disk_plan(
    plan: Plan, folder: Path, mode: CopyMode = "eager", seed: int = 0
) -> tuple[list[float], dict[str, int]]:
    """The last row of every chunk of y, and the bytes copied."""
    runtime = plan_runtime(plan, copy_mode=mode, seed=seed, files=open_files(plan.header.pools, folder))
    recorder = runtime.make_recorder(plan.kind_names, 0)
    executor = Executor(plan, runtime, {"copy": copy_views, "cast": add_one, "emitGrads": nothing}, recorder)
    try:
        for chunk in range(4):
            executor.buffer("x", chunk).fill_(10 * chunk)
        run(executor, plan)
        return [float(executor.buffer("y", i)[699]) for i in range(8)], runtime.take_copied_bytes()
    finally:
        runtime.close()


@pytest.mark.parametrize("mode", MODES)
def test_what_goes_to_a_file_comes_back(mode: CopyMode, tmp_path: Path) -> None:
    for seed in range(4):
        found, copied = run_disk_plan(disk_plan(), tmp_path, mode, seed)
        assert found == [1, 11, 21, 31, 2, 12, 22, 32]
        assert copied == dict.fromkeys(("h2d", "d2h", "read", "write"), 8 * 2800)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_wait_for_a_file_shows_in_some_order(tmp_path: Path) -> None:
    results = {tuple(run_disk_plan(disk_plan(late_wait=True), tmp_path, "random", seed)[0]) for seed in range(12)}
    assert len(results) > 1


def test_a_file_pool_needs_a_folder() -> None:
    with pytest.raises(ArenaError, match="in the pool disk, a file, and no folder was given") as caught:
        executor_for(disk_plan(), {"copy": copy_views, "cast": copy_views})
    assert "--disk-folder" in caught.value.hint


@pytest.mark.parametrize("mode", MODES)
def test_a_failed_transfer_raises_and_frees_everyone(
    mode: CopyMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwritev", broken)
    with pytest.raises(FpdtError, match="Input/output error"):
        run_disk_plan(disk_plan(), tmp_path, mode)
