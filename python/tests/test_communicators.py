"""Groups of ranks that a run really sends on, each a communicator of NCCL's, as src/memory counts them.

And what is asked of them, in which order; and of the driver, for page-locked memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from fpdt.plan import load_plan, read_frames
from fpdt.plan.columns import digest_of, inflate_columns
from fpdt.plan.header import parse_header
from fpdt.run import ranks
from fpdt.run.arena import Views
from fpdt.testing.fake_cuda.device import Device
from fpdt.testing.fake_cuda.files import made_up_files
from fpdt.testing.fake_cuda.install import made_up, make_runtime
from fpdt.testing.fake_cuda.pinned import ALREADY_REGISTERED, NOT_REGISTERED, OUT_OF_MEMORY, PinnedRanges
from tests.conftest import Probes
from tests.fake_cuda_plans import PlanOf
from tests.plan_builder import PlanBuilder
from tests.planned import ROOT, ZERO_3, make_plan, write_data

HEADS = {"query": [[0]], "keyValue": [[0]]}
CASES: Mapping[str, int] = json.loads((ROOT / "test/fixtures/communicators.json").read_text(encoding="utf-8"))
"""By `stage N, P of R ranks`, which the planner's tests read too."""
ZERO: Mapping[int, Mapping[str, Any]] = {0: {"stage": 0}, 1: {"stage": 1}, 2: {"stage": 2}, 3: ZERO_3}


@pytest.mark.parametrize("case", CASES)
def test_a_run_sends_on_as_many_groups_as_are_counted(case: str, probes: Probes, tmp_path: Path) -> None:
    words = case.replace(",", "").split()
    stage, sequence, ranks = int(words[1]), words[2], words[4]
    path = make_plan(tmp_path, "--gpus", ranks, "--sequence-parallel", sequence, zero=ZERO[stage])
    answer = probes.run(kind="groups", plan=path, data=write_data(tmp_path), worldSize=int(ranks))
    assert answer.get("groups") == CASES[case], answer


def test_ranks_call_the_same_collectives_in_the_same_order(
    probes: Probes, fake_cuda_plan: PlanOf, tmp_path: Path
) -> None:
    plan = fake_cuda_plan("two ranks")
    options = {"poison": False}
    answer = probes.run(kind="collectives", plan=plan, data=write_data(tmp_path), steps=2, worldSize=2, options=options)
    assert "failed" not in answer, answer["failed"] + answer["traceback"]
    first, second = answer["ranks"]
    assert list(first) == ["before arenas", "arenas", "step 0", "step 1"]
    assert first == second
    # Communicators that connect only now would ask for memory that the arenas have taken.
    assert first["arenas"] == []
    assert {"all_to_all_single", "all_gather_into_tensor"} <= {name for name, *_ in first["step 1"]}


def test_a_copy_lies_in_one_page_locked_range_or_in_none(fake_cuda_plan: PlanOf) -> None:
    plan = load_plan(fake_cuda_plan("windows, ranges, a file"))
    ranges, device = PinnedRanges(), Device()
    with made_up(device, ranges=ranges):
        runtime = make_runtime(plan, device, made_up_files(plan.header.pools, device))
        views = Views(plan, runtime.arenas)
        for section in plan.sections.values():
            for op in section.make_ops():
                for access in op.accesses:
                    if plan.buffers[access.buffer].pool in runtime.arenas:
                        view = views.rows(access.buffer, access.index, access.start, access.end)
                        assert ranges.is_copyable(view.data_ptr(), view.numel() * view.element_size())
        assert len(ranges.ranges) == 2


def test_page_locked_ranges_are_refused_as_the_driver_does() -> None:
    ranges = PinnedRanges(num_allowed=2)
    assert ranges.cudaHostRegister(4096, 4096, 0) == 0
    assert ranges.cudaHostRegister(6000, 4096, 0) == ALREADY_REGISTERED
    assert ranges.cudaHostRegister(8192, 4096, 0) == 0
    assert not ranges.is_copyable(8000, 400)
    assert ranges.is_copyable(8192, 400) and ranges.is_copyable(20000, 400)
    assert ranges.cudaHostRegister(16384, 4096, 0) == OUT_OF_MEMORY == ranges.pending_error
    assert ranges.cudaHostUnregister(4097) == NOT_REGISTERED
    assert ranges.cudaHostUnregister(4096) == 0
    assert ranges.cudaHostUnregister(4096) == NOT_REGISTERED


def test_every_group_has_the_limit_of_the_plan(probes: Probes, tmp_path: Path) -> None:
    """DeepSpeed makes groups of its own; a step of a plan may take hours."""
    plan = with_limit(make_plan(tmp_path, "--gpus", "2", zero={"stage": 1}), 7200)
    answer = probes.run(kind="groups", plan=plan, data=write_data(tmp_path), worldSize=2)
    assert answer.get("timeouts") and set(answer["timeouts"]) == {7200}, answer


def with_limit(path: Path, seconds: int) -> Path:
    """The plan with another limit for its collectives."""
    document = json.loads(path.read_text(encoding="utf-8"))
    document["header"] = json.dumps({**json.loads(document["header"]), "collectiveTimeoutSeconds": seconds})
    header, frames = document["header"].encode(), read_frames(path)
    document["digest"] = digest_of(header, inflate_columns(parse_header(header).columns, frames.columns))
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize("environment", [{}, {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}])
def test_groups_are_made_with_the_limit(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of NCCL is ten minutes."""
    made: list[Any] = []
    num_ranks = int(environment.get("WORLD_SIZE", "1"))
    monkeypatch.setattr(os, "environ", dict(environment))
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    for name in ("init_process_group", "new_group"):
        monkeypatch.setattr(dist, name, lambda *_, **keywords: made.append(keywords["timeout"]))
    layout = {"sequenceGroups": [[rank] for rank in range(num_ranks)], "heads": HEADS}
    run = {"sequenceParallelSize": 1, "dataParallelSize": num_ranks, "dtype": "float32", "seed": 0}
    overrides = {"collectiveTimeoutSeconds": 7200, "numRanks": num_ranks, "layout": layout, "run": run}
    plan = PlanBuilder(overrides=overrides).build()
    ranks.join_process_group(plan)
    ranks.sequence_group(plan, 0)
    assert made == [timedelta(hours=2)] * (1 + num_ranks)
