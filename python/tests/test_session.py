"""Real sessions of real plans: temporaries against their formula, and ZeRO-3 holding what it must not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fpdt.plan import load_plan
from fpdt.plan.op_kinds import EXTERNAL_KINDS
from tests.conftest import Probes
from tests.planned import MODEL, ZERO_3, make_plan, write_data

WIDE: Mapping[str, Any] = {**MODEL, "hidden_size": 64, "intermediate_size": 160, "vocab_size": 256}


@pytest.mark.parametrize(("policy", "fp16"), [("fpdt", None), ("auto", None), ("auto", {"enabled": True})])
def test_temporaries_of_every_kind_are_what_the_plan_says(
    policy: str, fp16: Mapping[str, Any] | None, probes: Probes, tmp_path: Path
) -> None:
    options = ("--gpus", "2", "--policy", policy, "--seq-len", "1024", "--chunks", "2")
    path = make_plan(tmp_path, *options, model=WIDE, fp16=fp16, evaluate=True)
    environment = {"FPDT_FAULT": "" if fp16 is None else "fp16"}
    data = write_data(tmp_path)
    evaluation = {"data": str(data), "sequences": 1, "every": None}
    job: dict[str, Any] = {"kind": "scratch", "plan": path, "data": data, "worldSize": 2, "environment": environment}
    answer = probes.run(**job, options={"evaluation": evaluation})
    assert "failed" not in answer, answer
    measured = {(section, number): peak for section, number, peak in answer["scratch"]}
    planned = {
        (section.name, op.id): op
        for section in load_plan(path).sections.values()
        for op in section.ops
        if op.kind not in EXTERNAL_KINDS
    }
    assert measured.keys() == planned.keys()
    peaks: dict[tuple[str, int], int] = {}
    for where, op in planned.items():
        group = (op.kind, op.scratch_bytes)
        peaks[group] = max(measured[where], peaks.get(group, 0))
    # On torch 2.13 for the CPU they are equal to the byte, in every kind. Of the weights' gradients at least no more:
    # gloo's thread may let go of weights that ZeRO gathered while the one op of a group runs, and so hide its bytes.
    assert {group: peak for group, peak in peaks.items() if peak > 1.01 * group[1]} == {}
    # For the same reason an exchange may find the message of its pair before freed, or not.
    loose = ("emitGrads", "toHeads", "toSequence")
    least = {group: peak for group, peak in peaks.items() if group[0] not in loose}
    assert {group: peak for group, peak in least.items() if peak < 0.99 * group[1]} == {}
    reverse = "postBwd" if policy == "fpdt" else "postBwdKept"
    assert {"toHeads", "attnBwd", reverse, "preBwd", "loss", "lossOnly"} <= {
        op.kind for op in planned.values() if op.scratch_bytes > 0
    }


def test_another_layer_left_gathered_stops_the_step(probes: Probes, tmp_path: Path) -> None:
    path = make_plan(tmp_path, zero=ZERO_3)
    answer = probes.run(kind="heldLayer", layer=1, plan=path, data=write_data(tmp_path), worldSize=1)
    assert answer["failed"].startswith("GatheredLayersError: while layer 0 runs, ZeRO-3 holds "), answer
    assert "gathered parameters of layers [1]; the config allows 0" in answer["failed"]


def test_a_start_loads_no_compiler(probes: Probes, tmp_path: Path) -> None:
    """DeepSpeed asks whether the optimizer is its Muon, whose module would load Inductor."""
    path = make_plan(tmp_path, "--gpus", "1")
    loaded = set(probes.run(kind="modules", plan=path, data=write_data(tmp_path), worldSize=1)["modules"])
    assert "deepspeed.runtime.zero.muon.muon_optimizer" in loaded
    assert "torch._inductor.compile_fx" not in loaded
