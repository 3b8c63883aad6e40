"""Runs of ds_configs: weights on the host, micro-batches of several sequences, optimizers of torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fpdt.testing.reference import run_reference
from tests.conftest import Probes
from tests.op_builders import compile_ops
from tests.planned import ZERO_3, make_plan, write_data
from tests.rounds import full

ON_HOST = {"offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "cpu"}}


def losses(
    folder: Path,
    probes: Probes,
    zero: Mapping[str, Any],
    num_ranks: int = 2,
    sequence_parallel: int | None = None,
    dtype: str = "float32",
    **more: Any,
) -> list[float]:
    """Of three steps."""
    folder.mkdir()
    options = ["--gpus", str(num_ranks), "--dtype", dtype]
    if sequence_parallel is not None:
        options += ["--sequence-parallel", str(sequence_parallel)]
    plan = make_plan(folder, *options, zero=zero, **more)
    answer = probes.run(kind="worker", plan=plan, data=write_data(folder), worldSize=num_ranks, steps=3)
    assert "failed" not in answer, answer
    return [step["loss"] for step in answer["steps"]]


def test_weights_on_the_host_train_as_those_on_the_device(probes: Probes, tmp_path: Path) -> None:
    """On a CPU both are in host memory: what differs is DeepSpeed's path."""
    here = losses(tmp_path / "here", probes, ZERO_3)
    assert losses(tmp_path / "there", probes, {**ZERO_3, **ON_HOST}) == here
    assert here[0] != here[-1]


def test_a_micro_batch_of_two_sequences_is_two_micro_steps(probes: Probes, tmp_path: Path) -> None:
    apart = losses(tmp_path / "apart", probes, {"stage": 2}, accumulation_steps=2)
    together = losses(tmp_path / "together", probes, {"stage": 2}, more={"train_micro_batch_size_per_gpu": 2})
    assert together == apart


@pytest.mark.parametrize(
    "optimizer",
    [
        {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}},
        full({"type": "Adagrad", "params": {"lr": 0.01}}),
    ],
)
def test_optimizers_of_torch_update_as_unsharded(optimizer: dict[str, Any], probes: Probes, tmp_path: Path) -> None:
    more = {"optimizer": optimizer, "zero_allow_untested_optimizer": True}
    found = losses(tmp_path / "run", probes, ZERO_3, more=more)
    expected = run_reference(tmp_path / "run" / "plan.json", tmp_path / "run" / "data.txt", 3, "float64", None, None)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}},
        full({"type": "Adagrad", "params": {"lr": 0.1, "initial_accumulator_value": 1.0}}),
        full({"type": "RMSprop", "params": {"lr": 1e-3, "momentum": 0.5, "weight_decay": 0.1}}),
        full({"type": "Adam", "params": {"lr": 1e-3, "weight_decay": 0.1, "torch_adam": True, "adam_w_mode": False}}),
    ],
)
def test_without_zero_in_bfloat16_they_do_too(optimizer: dict[str, Any], probes: Probes, tmp_path: Path) -> None:
    """What a step takes off the loss is that of the reference in bf16, to its rounding."""
    found = losses(tmp_path / "run", probes, {"stage": 0}, dtype="bfloat16", more={"optimizer": optimizer})
    expected = run_reference(tmp_path / "run" / "plan.json", tmp_path / "run" / "data.txt", 3, "bfloat16", None, None)
    assert found[0] - found[2] == pytest.approx(expected[0] - expected[2], rel=0.02)


BEFORE: Mapping[str, Any] = {"prescale_gradients": True}
PARTLY: Mapping[str, Any] = {"gradient_predivide_factor": 8.0}


@pytest.mark.parametrize(
    ("zero", "more"),
    [
        ({"stage": 0}, BEFORE),
        full({"stage": 0}, PARTLY),
        full({"stage": 0}, {"gradient_predivide_factor": 4.0}),
        full({"stage": 1}, {**BEFORE, **PARTLY}),
        full({"stage": 1}, {"gradient_predivide_factor": 4.0}),
        ({"stage": 2, "reduce_scatter": False}, PARTLY),
        full({"stage": 2, "reduce_scatter": False}, BEFORE),
        full({**ZERO_3, "reduce_scatter": False}, BEFORE),
    ],
)
def test_gradients_divided_before_their_sum_are_the_same(
    zero: Mapping[str, Any], more: Mapping[str, Any], probes: Probes, tmp_path: Path
) -> None:
    """Four ranks, two of them share a sequence."""
    found = losses(tmp_path / "run", probes, zero, num_ranks=4, sequence_parallel=2, more=more)
    expected = run_reference(tmp_path / "run" / "plan.json", tmp_path / "run" / "data.txt", 3, "float64", None, None)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[0] != found[-1]


@pytest.mark.parametrize(
    ("builder", "optimizer"),
    [
        full("CPULionBuilder", {"type": "Lion", "params": {"lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.1}}),
        full("CPUAdagradBuilder", {"type": "Adagrad", "params": {"lr": 0.01, "weight_decay": 0.1}}),
        full("CPUAdamBuilder", {"type": "AdamW", "params": {"lr": 1e-3, "weight_decay": 0.1}}),
    ],
)
def test_kernels_on_the_host_update_as_unsharded(
    builder: str, optimizer: dict[str, Any], probes: Probes, tmp_path: Path
) -> None:
    """DeepSpeed's own, which it compiles: for minutes."""
    compile_ops(builder)
    zero = {**ZERO_3, "offload_optimizer": {"device": "cpu"}}
    found = losses(tmp_path / "run", probes, zero, more={"optimizer": optimizer})
    expected = run_reference(tmp_path / "run" / "plan.json", tmp_path / "run" / "data.txt", 3, "float64", None, None)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[0] != found[-1]


IN_PAIRS = {"zero_hpz_partition_size": 2}
SMALL_STAY_WHOLE = {"stage": 3, "reduce_bucket_size": 4096}


@pytest.mark.parametrize("zero", [ZERO_3, full(SMALL_STAY_WHOLE), full({**ZERO_3, **ON_HOST})])
def test_a_second_partition_of_weights_changes_nothing(zero: Mapping[str, Any], probes: Probes, tmp_path: Path) -> None:
    """Backward and second micro-steps gather in pairs of four ranks what the update before has made."""
    found = losses(tmp_path / "run", probes, {**zero, **IN_PAIRS}, num_ranks=4, accumulation_steps=2)
    expected = run_reference(tmp_path / "run" / "plan.json", tmp_path / "run" / "data.txt", 3, "float64", None, None)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[0] != found[-1]
