"""Settings of a ds_config that a step depends on, each in a run of two ranks: the losses of the unsharded model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fpdt.testing.reference import run_reference
from tests.conftest import Probes
from tests.planned import ZERO_3
from tests.rounds import full
from tests.test_ds_configs import losses

TOLERANCE = 1e-5
ROUNDED = 1e-3
"""Where gradients are bf16 on their way: 8 bits, of three steps that move a loss of 4 by less than 0.1."""
STAGES: Mapping[int, Mapping[str, Any]] = {
    0: {"stage": 0},
    1: {"stage": 1, "reduce_bucket_size": 4096},
    2: {"stage": 2, "reduce_bucket_size": 4096},
    3: ZERO_3,
}
ZERO: list[tuple[int, dict[str, Any]]] = [
    *((stage, {"reduce_scatter": False}) for stage in (1, 2, 3)),
    *((stage, {"contiguous_gradients": False}) for stage in (1, 2, 3)),
    *((stage, {"overlap_comm": True}) for stage in (1, 2, 3)),
    *((stage, {"round_robin_gradients": True}) for stage in (1, 2)),
    *((stage, {"allgather_partitions": False, "allgather_bucket_size": 1000}) for stage in (1, 2)),
    *((stage, {"reduce_bucket_size": 10**6}) for stage in (1, 2, 3)),
    (3, {"sub_group_size": 1000}),
    (3, {"stage3_param_persistence_threshold": 2000, "stage3_prefetch_bucket_size": 5000}),
    (3, {"stage3_max_live_parameters": 10**9, "stage3_max_reuse_distance": 10**9}),
    (3, {"memory_efficient_linear": False, "stage3_allgather_sequential": True}),
]
CYCLE = {"cycle_min_lr": 1e-4, "cycle_max_lr": 5e-3, "cycle_first_step_size": 2, "decay_step_size": 1}
SCHEDULERS: list[dict[str, Any]] = [
    {"type": "WarmupLR", "params": {"warmup_max_lr": 5e-3, "warmup_num_steps": 2, "warmup_type": "linear"}},
    {"type": "WarmupDecayLR", "params": {"warmup_max_lr": 5e-3, "warmup_num_steps": 2, "total_num_steps": 4}},
    {"type": "WarmupCosineLR", "params": {"warmup_num_steps": 2, "total_num_steps": 4, "cos_min_ratio": 0.1}},
    {"type": "OneCycle", "params": CYCLE},
    {"type": "LRRangeTest", "params": {"lr_range_test_min_lr": 1e-4, "lr_range_test_step_size": 1}},
]
OF_TORCH: list[dict[str, Any]] = [
    {"type": "StepLR", "params": {"step_size": 1, "gamma": 0.3}},
    {"type": "CosineAnnealingLR", "params": {"T_max": 3}},
]


def check(folder: Path, probes: Probes, stage: int, tolerance: float = TOLERANCE, **more: Any) -> None:
    zero = {**STAGES[stage], **more.pop("zero", {})}
    found = losses(folder / "run", probes, zero, accumulation_steps=2, **more)
    expected = run_reference(folder / "run" / "plan.json", folder / "run" / "data.txt", 3, "float64")
    assert found == pytest.approx(expected, rel=tolerance)
    assert len(set(found)) == 3


@pytest.mark.parametrize(("stage", "setting"), [ZERO[0], *(full(*one) for one in ZERO[1:])])
def test_how_zero_goes_about_it(stage: int, setting: dict[str, Any], probes: Probes, tmp_path: Path) -> None:
    check(tmp_path, probes, stage, zero=setting)


@pytest.mark.parametrize("stage", [full(0), full(1), full(2), 3])
@pytest.mark.parametrize("clipping", [full(0.0), 0.01])
def test_clipping(stage: int, clipping: float, probes: Probes, tmp_path: Path) -> None:
    check(tmp_path, probes, stage, more={"gradient_clipping": clipping})


@pytest.mark.parametrize(
    ("stage", "scheduler"),
    [(3, SCHEDULERS[3]), *(full(3, one) for one in SCHEDULERS if one is not SCHEDULERS[3]), full(0, SCHEDULERS[3])]
    + [full(0, one) for one in OF_TORCH],
)
def test_learning_rates(stage: int, scheduler: dict[str, Any], probes: Probes, tmp_path: Path) -> None:
    check(tmp_path, probes, stage, more={"scheduler": scheduler})


@pytest.mark.parametrize("stage", [full(0), full(1), 2, full(3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", ROUNDED), full("fp16", ROUNDED), full("fp32", TOLERANCE)])
def test_gradients_on_their_way(stage: int, dtype: str, tolerance: float, probes: Probes, tmp_path: Path) -> None:
    check(tmp_path, probes, stage, tolerance, more={"communication_data_type": dtype})


@pytest.mark.parametrize("stage", [full(1), 2, full(3)])
@pytest.mark.parametrize("dtype", ["fp32", full("bf16")])
def test_gradients_that_accumulate(stage: int, dtype: str, probes: Probes, tmp_path: Path) -> None:
    """What three steps take off the loss in bf16 is that of the reference, to its rounding."""
    more = {"data_types": {"grad_accum_dtype": dtype}}
    found = losses(tmp_path / "run", probes, STAGES[stage], accumulation_steps=2, dtype="bfloat16", more=more)
    expected = run_reference(tmp_path / "run" / "plan.json", tmp_path / "run" / "data.txt", 3, "bfloat16")
    assert found[0] - found[2] == pytest.approx(expected[0] - expected[2], rel=0.02)
