"""Groups of ranks that a run really sends on, each a communicator of NCCL's, as src/memory counts them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Probes
from tests.planned import ROOT, ZERO_3, make_plan, write_data

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
