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
import torch
import torch.distributed as dist

from fpdt import devices
from fpdt.plan import Plan, load_plan, read_frames
from fpdt.plan.columns import digest_of, inflate_columns
from fpdt.plan.header import parse_header
from fpdt.run import communicators, ranks
from fpdt.run.arena import Views
from fpdt.testing.fake_cuda.device import Device
from fpdt.testing.fake_cuda.files import made_up_files
from fpdt.testing.fake_cuda.install import made_up, make_runtime
from fpdt.testing.fake_cuda.pinned import ALREADY_REGISTERED, NOT_REGISTERED, OUT_OF_MEMORY, PinnedRanges
from tests.conftest import Probes
from tests.fake_cuda_plans import PlanOf
from tests.plan_builder import PlanBuilder
from tests.planned import ROOT, ZERO_3, make_plan, write_data
from tests.rounds import core

CASES: Mapping[str, int] = json.loads((ROOT / "test/fixtures/communicators.json").read_text(encoding="utf-8"))
"""By `stage N, P of R ranks` and the ranks of a second partition, which the planner's tests read too."""
ZERO: Mapping[int, Mapping[str, Any]] = {0: {"stage": 0}, 1: {"stage": 1}, 2: {"stage": 2}, 3: ZERO_3}


@pytest.mark.parametrize(
    "case", core(CASES, ("stage 0, 1 of 1 ranks", "stage 1, 2 of 2 ranks", "stage 3, 2 of 4 ranks"))
)
def test_a_run_sends_on_as_many_groups_as_are_counted(case: str, probes: Probes, tmp_path: Path) -> None:
    words = case.replace(",", "").split()
    stage, sequence, ranks = words[1], words[2], words[4]
    second = {"zero_hpz_partition_size": int(words[-1])} if "partition" in words else {}
    zero = {**ZERO[int(stage)], **second}
    path = make_plan(tmp_path, "--gpus", ranks, "--sequence-parallel", sequence, zero=zero)
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
    warmed = {(name, size) for name, size, *_ in first["before arenas"]}
    assert {(name, 2) for name in ("all_to_all_single", "all_gather_into_tensor", "reduce_scatter_tensor")} <= warmed
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


ALONE: Mapping[str, str] = {}
OF_TWO = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}


def recorded(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """Keywords of the groups that would be made."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(os, "environ", dict(environment))
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    for name in ("init_process_group", "new_group"):
        monkeypatch.setattr(dist, name, lambda *_, **keywords: made.append(keywords))
    return made


def plan_of_ranks(num_ranks: int, sequence: int, device: str = "cpu") -> Plan:
    groups = [list(range(first, first + sequence)) for first in range(0, num_ranks, sequence)]
    layout = {"sequenceGroups": groups, "heads": {"query": [[0]] * sequence, "keyValue": [[0]] * sequence}}
    sizes = {"sequenceParallelSize": sequence, "dataParallelSize": num_ranks // sequence}
    run = {**sizes, "dtype": "float32", "seed": 0}
    overrides = {"collectiveTimeoutSeconds": 7200, "numRanks": num_ranks, "layout": layout, "run": run}
    return PlanBuilder(overrides=overrides, device=device).build()


@pytest.mark.parametrize("environment", [ALONE, OF_TWO])
def test_groups_are_made_with_the_limit(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of NCCL is ten minutes."""
    made = recorded(monkeypatch, environment)
    num_ranks = int(environment.get("WORLD_SIZE", "1"))
    ranks.join_process_group(plan_of_ranks(num_ranks, num_ranks))
    ranks.sequence_group(plan_of_ranks(4, 2), 3)
    assert [keywords["timeout"] for keywords in made] == [timedelta(hours=2)] * 3


def test_no_group_is_made_for_one_rank_or_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recorded(monkeypatch, ALONE)
    assert ranks.sequence_group(plan_of_ranks(4, 1), 2) is None
    assert ranks.sequence_group(plan_of_ranks(4, 4), 2) is dist.group.WORLD
    assert made == []


def test_nccl_connects_at_once_and_keeps_the_order_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recorded(monkeypatch, OF_TWO)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    ranks.join_process_group(plan_of_ranks(2, 2, "cuda"))
    # RANK 1 is the only one of its node that the environment knows of.
    assert [keywords["device_id"] for keywords in made] == [torch.device("cuda", 0)]
    assert os.environ["NCCL_LAUNCH_ORDER_IMPLICIT"] == "1"


def test_what_communicators_take_is_what_pytorch_did_not_allocate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device says what is free; before the ranks are joined, and when every collective has run once."""
    memory = {"free": 1000, "reserved": 50}
    device = torch.device("cuda", 0)
    place = ranks.Ranks(0, 0, 2, device)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (memory["free"], 2000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: memory["reserved"])
    monkeypatch.setattr(communicators, "rank_place", lambda _: place)
    monkeypatch.setattr(communicators, "join_process_group", lambda _: place)
    monkeypatch.setattr(communicators, "check_same_plan", lambda *_: None)

    def warm_up(*_: object) -> None:
        memory.update(free=memory["free"] - 120, reserved=memory["reserved"] + 20)

    monkeypatch.setattr(communicators, "_warm_up", warm_up)
    found = communicators.connect(plan_of_ranks(1, 1))
    assert found.num_bytes == 2 * (120 - 20)
    assert (found.ranks, found.exchange) == (place, None)
    assert devices.foreign_bytes(torch.device("cpu")) is None
