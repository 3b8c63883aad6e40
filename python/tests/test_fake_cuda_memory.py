"""What PyTorch allocates of a GPU in a step, the host as far ahead as it may be, against what the plan has for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fpdt.plan import load_plan
from tests.conftest import Probes
from tests.fake_cuda_plans import CASES, FEW_LARGE_OPS, Case, plan_of
from tests.planned import write_data
from tests.rounds import core

# Chunks of 128 rows a rank, as a GPU's kernels have them; the CPU can run the reference kernel alone.
GPU = ("--gpu", "a100-80gb", "--attention", "reference")
NOT_PYTORCHS = ("CUDA context", "cuBLAS", "NCCL", "more NCCL", "page tables", "arena")


@pytest.mark.parametrize("name", core(CASES, ("two ranks",)))
def test_steps_allocate_no_more_than_the_plan_says(name: str, probes: Probes, tmp_path: Path) -> None:
    case = CASES[name]
    plan = plan_of(case, tmp_path, *GPU, "--seq-len", str(4 * 128 * case.num_ranks))
    peaks = allocated(probes, plan, case, tmp_path)
    planned = planned_bytes(plan)
    assert 0.5 * planned["microSteps"] < peaks["microSteps"] <= planned["microSteps"]
    assert 0.5 * planned["optimizerStep"] < peaks["optimizerStep"] <= planned["optimizerStep"]


@pytest.mark.full
def test_weights_add_up_where_nothing_holds_the_host_back(probes: Probes, tmp_path: Path) -> None:
    plan = plan_of(FEW_LARGE_OPS, tmp_path, *GPU, "--seq-len", "256")
    planned = planned_bytes(plan)["microSteps"]
    assert allocated(probes, plan, FEW_LARGE_OPS, tmp_path)["microSteps"] <= planned
    assert allocated(probes, plan, FEW_LARGE_OPS, tmp_path, turnsAhead=1000)["microSteps"] > planned


def allocated(probes: Probes, plan: Path, case: Case, folder: Path, turnsAhead: int = 0) -> Mapping[str, int]:  # noqa: N803
    """Most bytes in use, or still used by a stream, of two steps: the first makes the optimizer's states."""
    answer = probes.run(
        kind="allocations",
        plan=plan,
        data=write_data(folder),
        steps=2,
        worldSize=case.num_ranks,
        turnsAhead=turnsAhead,
        options={"poison": False},
    )
    assert "failed" not in answer, answer["failed"] + answer["traceback"]
    peaks: Mapping[str, int] = answer["peaks"]
    assert answer["reserved"] >= max(peaks.values())
    return peaks


def planned_bytes(plan: Path) -> dict[str, int]:
    """What the ledger has for PyTorch on the device, its reserve too, by what a step is at."""
    ledger: dict[str, Any] = json.loads(load_plan(plan).prose)["memory"]["pools"][0]
    kept = sum(item["bytes"] for item in ledger["persistent"] if not item["name"].startswith(NOT_PYTORCHS))
    instants = {one["name"]: kept + sum(item["bytes"] for item in one["items"]) for one in ledger["instants"]}
    update = instants.pop("optimizerStep")
    return {"microSteps": max(instants.values()), "optimizerStep": update}
