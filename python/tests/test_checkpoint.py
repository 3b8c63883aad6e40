"""Checkpoints of real runs: the same losses to the bit under each of DeepSpeed's optimizers, and in other layouts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Probes
from tests.planned import ZERO_3, make_plan, write_data
from tests.rounds import full

STEPS = 5
HALF = 3
WARM_UP = {"type": "WarmupLR", "params": {"warmup_max_lr": 1e-3, "warmup_num_steps": 4}}
PLAIN = {"stage": 0}
ROUND_ROBIN = {"stage": 2, "round_robin_gradients": True, "contiguous_gradients": True}
OFFLOADED = {**ZERO_3, "offload_optimizer": {"device": "cpu"}}


def options(folder: Path, **more: Any) -> dict[str, Any]:
    checkpoint = {"folder": str(folder), "every": None, "keep": 2, "on_save_failure": "stop", **more}
    return {"poison": False, "checkpoint": checkpoint}


def newest() -> dict[str, Any]:
    return {"resume": {"newest": True, "path": None}}


def train(probes: Probes, plan: Path, data: Path, num_ranks: int, steps: int, **given: Any) -> dict[str, Any]:
    answer = probes.run(kind="worker", plan=plan, data=data, worldSize=num_ranks, steps=steps, **given)
    assert "failed" not in answer, answer
    return answer


BF16 = {"bf16": {"enabled": True}}
FP32_SUMS = {**BF16, "data_types": {"grad_accum_dtype": "fp32"}}
IN_BF16 = ("--dtype", "bfloat16")


@pytest.mark.parametrize(
    ("zero", "given", "more"),
    [
        (PLAIN, (), {"scheduler": WARM_UP}),
        full(ROUND_ROBIN, (), None),
        full(OFFLOADED, (), {"scheduler": WARM_UP}),
        full(PLAIN, IN_BF16, BF16),
        full(PLAIN, IN_BF16, {**BF16, "optimizer": {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9}}}),
        full(PLAIN, IN_BF16, {**BF16, "optimizer": {"type": "Adagrad", "params": {"lr": 0.01}}}),
        full({"stage": 1}, IN_BF16, FP32_SUMS),
        full({**ZERO_3, "zero_hpz_partition_size": 2}, (), None),
    ],
    ids=["plain", "round-robin-2", "offloaded-3", "unfused", "momentum", "sums", "bf16-fp32", "second-partition"],
)
def test_a_resumed_run_has_the_losses_of_one_that_was_not_stopped(
    zero: Mapping[str, Any], given: tuple[str, ...], more: Mapping[str, Any] | None, probes: Probes, tmp_path: Path
) -> None:
    plan = make_plan(tmp_path, "--gpus", "2", *given, zero=zero, more=more)
    data = write_data(tmp_path)
    whole = train(probes, plan, data, 2, STEPS, options={"poison": False})
    first = train(probes, plan, data, 2, HALF, options=options(tmp_path / "saved", every=1))
    assert first["losses"] == whole["losses"][:HALF]
    # Written while the next step ran, and the last one after all of them.
    assert [one["step"] for one in first["saved"]] == [1, 2, 3] and all(
        one["problem"] is None for one in first["saved"]
    )
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["lock", "step-00000002", "step-00000003"]
    rest = train(probes, plan, data, 2, STEPS, options={**options(tmp_path / "saved"), **newest()})
    assert rest["losses"] == whole["losses"][HALF:]


def test_a_checkpoint_goes_on_with_other_ranks_and_another_stage(probes: Probes, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    data = write_data(tmp_path)
    plan = make_plan(tmp_path, "--gpus", "2", zero=ZERO_3)
    other = make_plan(tmp_path / "one", "--gpus", "1", "--chunks", "4", zero=PLAIN)
    whole = train(probes, plan, data, 2, STEPS, options={"poison": False})
    train(probes, plan, data, 2, HALF, options=options(tmp_path / "saved"))
    rest = train(probes, other, data, 1, STEPS, options={**options(tmp_path / "saved"), **newest()})
    assert rest["losses"][0] == pytest.approx(whole["losses"][HALF], rel=1e-6)
    assert rest["losses"] == pytest.approx(whole["losses"][HALF:], rel=1e-5)
    back = train(probes, plan, data, 2, STEPS + 1, options={**options(tmp_path / "saved"), **newest()})
    assert back["remarks"] == [f"goes on at step {STEPS} from {tmp_path}/saved/step-{STEPS:08d}"]


LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]}


@pytest.mark.full
def test_adapters_go_on_with_other_ranks_where_the_weights_below_are_the_same(probes: Probes, tmp_path: Path) -> None:
    """The sum of what does not train is the same however it is sharded."""
    (tmp_path / "adapter_config.json").write_text(json.dumps(LORA))
    data = write_data(tmp_path)
    plan, other, one = (
        make_plan(folder, "--gpus", gpus, "--lora", str(tmp_path / "adapter_config.json"), *given, zero=zero)
        for folder, gpus, given, zero in (
            (folder_of(tmp_path, "two"), "2", (), ZERO_3),
            (folder_of(tmp_path, "seed"), "2", ("--seed", "7"), ZERO_3),
            (folder_of(tmp_path, "one"), "1", ("--chunks", "4"), PLAIN),
        )
    )
    whole = train(probes, plan, data, 2, STEPS, options={"poison": False})
    train(probes, plan, data, 2, HALF, options=options(tmp_path / "saved"))
    resume = {**options(tmp_path / "saved"), **newest()}
    refused = probes.run(kind="worker", plan=other, data=data, worldSize=2, steps=STEPS, options=resume)
    assert "frozenSum" in refused["failed"]
    rest = train(probes, one, data, 1, STEPS, options=resume)
    assert rest["losses"] == pytest.approx(whole["losses"][HALF:], rel=1e-5)


def folder_of(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


@pytest.mark.full
@pytest.mark.parametrize("stage", [0, 3])
def test_in_fp16_the_loss_scale_goes_on_too(stage: int, probes: Probes, tmp_path: Path) -> None:
    fp16 = {"enabled": True, "initial_scale_power": 21, "loss_scale_window": 2}
    plan = make_plan(tmp_path, "--gpus", "2", "--dtype", "float16", zero={**ZERO_3, "stage": stage}, fp16=fp16)
    data = write_data(tmp_path)
    given: dict[str, Any] = {"environment": {"FPDT_FAULT": "fp16"}}
    whole = train(probes, plan, data, 2, 9, options={"poison": False}, **given)
    train(probes, plan, data, 2, 5, options=options(tmp_path / "saved"), **given)
    rest = train(probes, plan, data, 2, 9, options={**options(tmp_path / "saved"), **newest()}, **given)
    assert rest["losses"] == whole["losses"][5:]
    told = [(step["skipped"], step["loss_scale"]) for step in whole["steps"]]
    assert {skipped for skipped, _ in told[:5]} == {skipped for skipped, _ in told} == {True, False}
    assert [(step["skipped"], step["loss_scale"]) for step in rest["steps"]] == told[5:]


def test_a_disk_that_fills_up_stops_the_run_or_not_and_leaves_the_checkpoint_before(
    probes: Probes, tmp_path: Path
) -> None:
    plan, data, saved = make_plan(tmp_path, zero=PLAIN), write_data(tmp_path), tmp_path / "saved"
    train(probes, plan, data, 1, 1, options=options(saved))
    full = {"FPDT_FAULT": "full:20000"}
    stopped = probes.run(
        kind="worker",
        plan=plan,
        data=data,
        worldSize=1,
        steps=3,
        environment=full,
        options={**options(saved, every=1), **newest()},
    )
    assert stopped["failed"].startswith("CheckpointError: the checkpoint could not be written: rank 0 cannot write")
    went_on = train(
        probes,
        plan,
        data,
        1,
        3,
        environment=full,
        options={**options(saved, every=1, on_save_failure="continue"), **newest()},
    )
    assert [one["step"] for one in went_on["saved"]] == [2, 3]
    assert all("No space left on device" in one["problem"] for one in went_on["saved"])
    assert sorted(path.name for path in saved.iterdir()) == ["lock", "step-00000001"]
