"""fp16 under DeepSpeed's dynamic loss scale, on CPU ranks that are made to say they have it (see faults.py)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from deepspeed.runtime.fp16 import loss_scaler
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaleConfig
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer

from fpdt.models.build import DTYPES
from fpdt.plan import Plan, load_plan
from fpdt.run.engine import ConfigError, check_config
from fpdt.run.loss_scale import HalfLossScale, LossScaleError
from fpdt.testing.reference import ReferenceTrainer, run_reference
from fpdt.testing.reference_scale import ReferenceScale, make_reference_scale
from tests.conftest import Probes
from tests.planned import ZERO_3, make_plan, peak_bytes, write_data
from tests.rounds import full
from tests.test_worker import hand_plan, worst_error

ON_CPU = {"FPDT_FAULT": "fp16"}
OVERFLOWS: Mapping[str, Any] = {"enabled": True, "initial_scale_power": 21, "loss_scale_window": 2}
"""From a scale at which gradients are infinite; one that is growing soon."""
HELD_BY_GLOO = 4 * 8
"""Bytes of the numbers that ranks exchange in a step: tokens, overflow, norm of gradients, loss; 8 bytes each at most.

Gloo's thread lets go of each a little after its exchange: whether it counts in a peak is a matter of time.
"""


def zero_of(stage: int) -> dict[str, Any]:
    return dict(ZERO_3) if stage == 3 else {"stage": stage, **({"reduce_bucket_size": 4096} if stage else {})}


class Follower(ReferenceScale):
    """Skips the steps that it is told, and moves the scale by them."""

    def __init__(self, plan: Plan, skipped: list[bool]) -> None:
        super().__init__(plan.deepspeed["fp16"], int(plan.run["zeroStage"]))
        self._told = iter(skipped)

    def update(self, is_finite: bool) -> bool:
        return super().update(not next(self._told))


def follow(plan: Path, data: Path, skipped: list[bool], dtype: str) -> list[tuple[float, float]]:
    """Loss and scale of each step of a reference loop that skips the same steps."""
    loaded = load_plan(plan)
    trainer = ReferenceTrainer(loaded, data, DTYPES[dtype])
    scale = trainer.scale = Follower(loaded, skipped)
    return [(scale.current, trainer.step(step, None)) for step in range(len(skipped))]


@pytest.mark.parametrize("stage", [full(0), full(1), full(2), 3])
def test_a_step_that_overflows_is_skipped_and_the_run_goes_on(stage: int, probes: Probes, tmp_path: Path) -> None:
    plan = hand_plan(tmp_path, zero_of(stage), num_ranks=2, dtype="float16", fp16=OVERFLOWS)
    data = write_data(tmp_path)
    answer = probes.run(kind="weights", plan=plan, data=data, steps=9, worldSize=2, environment=ON_CPU)
    assert "failed" not in answer, answer
    steps = answer["steps"]
    skipped = [step["skipped"] for step in steps]
    assert skipped[0] and skipped.count(False) > 3
    assert [step["non_finite"] for step in steps] == [["gradientNorm"] if one else [] for one in skipped]
    weights = [step["weights"] for step in steps]
    kept = [now == before for before, now in pairwise(weights)]
    assert kept == skipped[1:]
    exact, half = (follow(plan, data, skipped, dtype) for dtype in ("float32", "float16"))
    scales = [scale for scale, _ in exact]
    assert [step["loss_scale"] for step in steps] == scales
    assert any(now > before for before, now in pairwise(scales))
    own = max(abs(ours - loss) for (_, ours), (_, loss) in zip(half, exact, strict=True))
    error = max(abs(step["loss"] - loss) for step, (_, loss) in zip(steps, exact, strict=True))
    assert error < 4 * own


def test_one_rank_skips_the_steps_that_transformers_would(probes: Probes, tmp_path: Path) -> None:
    """At the scale that it comes to, gradients are up to 0.75 of what fp16 holds."""
    fp16 = {"enabled": True, "initial_scale_power": 22, "hysteresis": 1}
    plan, data = hand_plan(tmp_path, {"stage": 1}, dtype="float16", fp16=fp16), write_data(tmp_path)
    answer = probes.run(kind="weights", plan=plan, data=data, steps=8, worldSize=1, environment=ON_CPU)
    trainer = ReferenceTrainer(load_plan(plan), data, torch.float16)
    expected = []
    for step in range(8):
        scale = trainer.scale.current
        trainer.step(step, None)
        expected.append((scale, not trainer.is_finite()))
    assert [(step["loss_scale"], step["skipped"]) for step in answer["steps"]] == expected
    assert {True, False} == {skipped for _, skipped in expected}


@pytest.mark.parametrize("stage", [full(0), full(1), full(2), 3])
def test_gradients_are_as_exact_as_transformers_own_in_fp16(stage: int, probes: Probes, tmp_path: Path) -> None:
    fp16 = {"enabled": True, "initial_scale_power": 10}
    plan = hand_plan(tmp_path, zero_of(stage), steps=2, num_ranks=2, dtype="float16", fp16=fp16, rebuild=True, tiles=3)
    data = write_data(tmp_path)
    job = {"plan": plan, "data": data, "worldSize": 2, "environment": ON_CPU, "dumpGrads": tmp_path / "run"}
    answer = probes.run(kind="worker", **job)
    assert [(step["loss_scale"], step["skipped"]) for step in answer["steps"]] == [(1024, False)]
    for dtype in ("float64", "float16"):
        run_reference(plan, data, 1, dtype, tmp_path / dtype)
    own = worst_error(tmp_path / "float16", tmp_path / "float64", 0)
    assert 1e-4 < own < 1e-2
    assert worst_error(tmp_path / "run", tmp_path / "float64", 0) < 1.5 * own


@pytest.mark.parametrize("stage", [0, 3])
def test_a_static_scale_skips_and_stays(stage: int, probes: Probes, tmp_path: Path) -> None:
    fp16 = {"enabled": True, "loss_scale": 2.0**24}
    plan, data = hand_plan(tmp_path, zero_of(stage), dtype="float16", fp16=fp16), write_data(tmp_path)
    answer = probes.run(kind="worker", plan=plan, data=data, steps=2, worldSize=1, environment=ON_CPU)
    assert [(step["loss_scale"], step["skipped"]) for step in answer["steps"]] == [(2.0**24, True)] * 2


def test_the_smallest_scale_ends_the_run_with_what_to_do(probes: Probes, tmp_path: Path) -> None:
    fp16 = {"enabled": True, "initial_scale_power": 24, "min_loss_scale": 2**24, "hysteresis": 1}
    plan, data = hand_plan(tmp_path, {"stage": 2}, dtype="float16", fp16=fp16), write_data(tmp_path)
    answer = probes.run(kind="worker", plan=plan, data=data, steps=1, worldSize=1, environment=ON_CPU)
    assert "not finite in fp16 at loss scale 1.67772e+07, the smallest that is allowed" in answer["failed"]


@pytest.mark.parametrize("stage", [full(0), full(2), 3])
def test_memory_is_that_of_bfloat16(stage: int, probes: Probes, tmp_path: Path) -> None:
    found = []
    for dtype in ("bfloat16", "float16"):
        folder = tmp_path / dtype
        folder.mkdir()
        fp16: dict[str, Any] = {"fp16": {"enabled": True}} if dtype == "float16" else {}
        options = ("--gpus", "2", *(() if fp16 else ("--dtype", dtype)))
        plan, data = make_plan(folder, *options, zero=zero_of(stage), **fp16), write_data(folder)
        answer = probes.run(kind="worker", plan=plan, data=data, steps=2, worldSize=2, environment=ON_CPU)
        assert [step["skipped"] for step in answer["steps"]] == [False, False]
        found.append((peak_bytes(plan), [step["pool_bytes"] for step in answer["steps"]]))
    (planned, full), (planned_half, half) = found
    assert planned == planned_half
    for pools, of_half in zip(full, half, strict=True):
        assert pools.keys() == of_half.keys() == planned.keys()
        assert pools["host"] == of_half["host"]
        assert abs(pools["hbm"] - of_half["hbm"]) <= HELD_BY_GLOO


def test_a_cpu_without_fp16_is_told_what_works(tmp_path: Path) -> None:
    fp16 = {"enabled": True}
    plan = load_plan(hand_plan(tmp_path, {"stage": 0}, dtype="float16", fp16=fp16))
    with pytest.raises(ConfigError, match="does not train in fp16 on this cpu") as caught:
        check_config(plan)
    assert caught.value.hint == "plan with dtype bfloat16 or float32"
    with pytest.raises(ConfigError, match=r"dtype is float16 but ds_config has fp16.enabled=false"):
        check_config(replace(plan, deepspeed={**plan.deepspeed, "fp16": {"enabled": False}}))


class Scaled:
    """An optimizer of stage 0 as far as its scale is concerned."""

    def __init__(self, overflow: bool, error: Exception | None = None) -> None:
        self.loss_scale_config = SimpleNamespace(cur_scale=4.0)
        self._overflow, self._error = overflow, error
        self.seen: list[float] = []

    def _update_scale(self, overflow: bool) -> None:
        if self._error is not None:
            raise self._error
        self.loss_scale_config.cur_scale *= 0.5 if overflow else 2

    def step(self) -> str:
        self._update_scale(self._overflow)
        self.seen.append(self.loss_scale_config.cur_scale)
        return "stepped"


@pytest.mark.parametrize(("overflow", "after"), [(False, 8.0), (True, 2.0)])
def test_a_step_ends_with_the_scale_that_it_began_with(overflow: bool, after: float) -> None:
    optimizer = Scaled(overflow)
    scale = HalfLossScale(optimizer)
    assert float(scale.scale_loss(torch.ones(1))) == 4
    assert optimizer.step() == "stepped"
    assert (optimizer.seen, scale.current) == ([4.0], after)


def test_an_error_of_the_scaler_says_what_to_do() -> None:
    optimizer = Scaled(True, Exception("already at minimum"))
    HalfLossScale(optimizer)
    with pytest.raises(LossScaleError, match="at loss scale 4, the smallest") as caught:
        optimizer.step()
    assert "bfloat16" in caught.value.hint


@pytest.fixture
def on_rank_0(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loss_scaler, "dist", SimpleNamespace(get_rank=lambda: 0))
    yield


@pytest.mark.parametrize("refills", [False, True])
@pytest.mark.parametrize("hysteresis", [1, 2, 3])
@pytest.mark.usefixtures("on_rank_0")
def test_the_references_scale_moves_as_deepspeeds(hysteresis: int, refills: bool) -> None:
    fp16 = {
        "initial_scale_power": 6,
        "loss_scale_window": 3,
        "hysteresis": hysteresis,
        "consecutive_hysteresis": refills,
    }
    ours, drawn = ReferenceScale(fp16, stage=2), random.Random(hysteresis)
    theirs = DynamicLossScaler(2**6, 3, 1, hysteresis, refills, raise_error_at_min_scale=False)
    for _ in range(300):
        overflow = drawn.random() < 0.2
        theirs.update_scale(overflow)
        assert ours.update(not overflow) is not overflow
        assert ours.current == theirs.cur_scale


def test_the_references_scale_of_stage_0_has_no_hysteresis() -> None:
    ours, drawn = ReferenceScale({"initial_scale_power": 6, "loss_scale_window": 3}, stage=0), random.Random(1)
    arguments = {"init_scale": 2**6, "scale_window": 3, "min_scale": 1}
    config = LossScaleConfig(torch.float16, True, 0, arguments)
    optimizer: Any = SimpleNamespace(loss_scale_config=config, verbose=False)
    for _ in range(300):
        overflow = drawn.random() < 0.2
        FP16_UnfusedOptimizer._update_scale(optimizer, overflow)
        ours.update(not overflow)
        assert ours.current == config.cur_scale


def test_other_references_are_not_scaled(tmp_path: Path) -> None:
    plan = load_plan(hand_plan(tmp_path, {"stage": 0}, dtype="float16", fp16={"enabled": True}))
    scale = make_reference_scale(plan, torch.float32)
    assert scale.update(is_finite=False)
    assert scale.current == 1
