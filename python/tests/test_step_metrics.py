"""Learning rate and gradient norm of a step: those of DeepSpeed's schedule and of the gradients that were dumped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.conftest import Probes
from tests.planned import make_plan, write_data
from tests.rounds import full
from tests.test_half import zero_of

PEAK, NUM_WARMUP_STEPS = 1e-3, 4
SCHEDULE: dict[str, Any] = {
    "type": "WarmupLR",
    "params": {"warmup_max_lr": PEAK, "warmup_num_steps": NUM_WARMUP_STEPS, "warmup_type": "linear"},
}


@pytest.mark.parametrize("stage", [0, full(1), full(2), 3])
def test_a_step_tells_the_rate_of_its_update_and_the_norm_before_clipping(
    stage: int, probes: Probes, tmp_path: Path
) -> None:
    plan = make_plan(tmp_path, "--gpus", "2", zero=zero_of(stage), more={"scheduler": SCHEDULE})
    dump = tmp_path / "gradients"
    job = {"plan": plan, "data": write_data(tmp_path), "steps": 6, "worldSize": 2, "dumpGrads": dump}
    answer = probes.run(kind="worker", **job)
    assert "failed" not in answer, answer
    rates = [step["learning_rate"] for step in answer["steps"]]
    # DeepSpeed's schedule has its first value twice: when it is made, and after the first update.
    assert rates == pytest.approx([PEAK * min(1, max(0, step - 1) / NUM_WARMUP_STEPS) for step in range(6)])
    norms = [step["gradient_norm"] for step in answer["steps"]]
    if stage == 0:
        assert norms == [None] * 6  # A plain torch optimizer steps, and DeepSpeed's clipping keeps no norm.
    else:
        assert norms == pytest.approx([norm_of(file) for file in sorted(dump.glob("*.safetensors"))], rel=1e-5)


def norm_of(file: Path) -> float:
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in load_file(file).values()))
