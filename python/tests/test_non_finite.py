"""NaN in the loss or a gradient of one rank: the run stops and says where, or leaves the weights as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Probes
from tests.planned import ZERO_3, make_plan, write_data

# Of 2 chunks of 48 tokens rank 1 has [24, 48) of the first.
PLACE = "rank 1, position 29 of sequence 0 in micro-step 0"
# A step takes 97 tokens.
LOSS_PLACE = f"{PLACE} (token 126 of data.txt)"
GRADIENT_PLACE = "rank 1, sequence 0 in micro-step 0 (from token 97 of data.txt on)"
STAGES: Mapping[str, Mapping[str, Any]] = {"0": {"stage": 0}, "2": {"stage": 2}, "3": ZERO_3}


def run(probes: Probes, plan: Path, data: Path, policy: str | None, fault: str) -> dict[str, Any]:
    options = {"poison": True, "on_non_finite": policy}
    environment = {"FPDT_FAULT": fault}
    return probes.run(
        kind="worker", plan=plan, data=data, worldSize=2, steps=3, options=options, environment=environment
    )


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for stage, zero in STAGES.items():
        folder = tmp_path_factory.mktemp(f"stage-{stage}")
        found[stage] = make_plan(folder, "--gpus", "2", "--steps", "3", zero=zero)
    return found


@pytest.mark.parametrize(("what", "place"), [("loss", LOSS_PLACE), ("gradient", GRADIENT_PLACE)])
def test_a_run_stops_and_says_where(
    what: str, place: str, plans: Mapping[str, Path], probes: Probes, tmp_path: Path
) -> None:
    answer = run(probes, plans["3"], write_data(tmp_path), "stop", f"nan:{what}:1:1")
    assert answer["failed"] == f"NonFiniteError: the {what} of step 1 is not finite: {place}"


def test_a_step_is_skipped_alike_under_every_stage(plans: Mapping[str, Path], probes: Probes, tmp_path: Path) -> None:
    data = write_data(tmp_path)
    losses = {}
    for stage, plan in plans.items():
        answer = run(probes, plan, data, "skip", "nan:gradient:1:1")
        assert "failed" not in answer, answer
        steps = answer["steps"]
        assert [step["skipped"] for step in steps] == [False, True, False]
        assert [step["non_finite_place"] for step in steps] == [None, GRADIENT_PLACE, None]
        assert "gradient" in steps[1]["non_finite"] and steps[2]["non_finite"] == []
        losses[stage] = answer["losses"]
    assert losses["2"] == pytest.approx(losses["0"], rel=1e-5) and losses["3"] == pytest.approx(losses["0"], rel=1e-5)


def test_a_skipped_loss_is_null_and_has_its_place(plans: Mapping[str, Path], probes: Probes, tmp_path: Path) -> None:
    answer = run(probes, plans["0"], write_data(tmp_path), "skip", "nan:loss:1:0")
    assert "failed" not in answer, answer
    assert answer["losses"][0] is None and None not in answer["losses"][1:]
    assert (
        answer["steps"][0]["non_finite"] == ["loss"]
        and answer["steps"][0]["non_finite_place"] == f"{PLACE} (token 29 of data.txt)"
    )
