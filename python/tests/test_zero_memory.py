"""Steps whose peak is ZeRO's: buffers of gathered weights, copies of reduced gradients, updates on the host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Probes
from tests.planned import ZERO_3, make_plan, peak_bytes, peak_instant, write_data
from tests.rounds import full
from tests.test_update_memory import COUNTED_BY_NOBODY, MODEL_STATES_ALONE

BUCKET = {"reduce_bucket_size": 1_000_000}
"""A layer and a half."""
SHARDED = {**ZERO_3, **BUCKET, "sub_group_size": 1000}
"""Updated weight by weight, so that no update is the peak."""
OFFLOAD = {"offload_optimizer": {"device": "cpu"}}
OFFLOAD_WEIGHTS = {"offload_param": {"device": "cpu"}}
"""Moves nothing on a CPU, where weights are in host memory: what is held is the same."""
SECOND = {"zero_hpz_partition_size": 2}
FLOAT_ON_THE_WAY = {"communication_data_type": "fp32"}
FLOAT_SUMS = {"data_types": {"grad_accum_dtype": "fp32"}}
BACKWARD, REDUCE, STEP = "layerBackward", "gradientReduce", "optimizerStep"
ROUNDED_UP = 0.01
"""What the plan may be above the truth, where it counts something as if it were all there at once."""


@pytest.mark.parametrize(
    ("num_ranks", "zero", "more", "accumulation_steps", "instant"),
    [
        full(2, SHARDED, {}, 1, BACKWARD),
        full(1, SHARDED, {}, 1, BACKWARD),
        full(2, {**SHARDED, "contiguous_gradients": False}, {}, 1, BACKWARD),
        full(2, {**SHARDED, "reduce_scatter": False}, {}, 1, BACKWARD),
        full(2, {**SHARDED, **SECOND}, {}, 1, BACKWARD),
        full(2, SHARDED, FLOAT_ON_THE_WAY, 1, BACKWARD),
        full(2, {**SHARDED, "contiguous_gradients": False}, FLOAT_ON_THE_WAY, 1, BACKWARD),
        (2, SHARDED, FLOAT_SUMS, 1, BACKWARD),
        full(2, {**SHARDED, **OFFLOAD}, {}, 1, BACKWARD),
        full(2, {**SHARDED, **OFFLOAD_WEIGHTS}, {}, 1, BACKWARD),
        (2, {**SHARDED, **OFFLOAD, **OFFLOAD_WEIGHTS}, {}, 1, BACKWARD),
        # Everything in one bucket, which is reduced at the end.
        full(2, {**SHARDED, "reduce_bucket_size": 20_000_000}, {}, 1, REDUCE),
        # Everything is fetched ahead, out of one buffer, and small weights stay whole.
        (2, {"stage": 3, "sub_group_size": 1000, **BUCKET}, {}, 1, "layerForward"),
        full(2, {"stage": 2, **BUCKET, **OFFLOAD}, {}, 1, STEP),
        full(2, {"stage": 2, **BUCKET, **OFFLOAD}, {}, 2, STEP),
        full(2, {"stage": 2, **BUCKET}, FLOAT_SUMS, 1, STEP),
        (2, {"stage": 1, **BUCKET}, FLOAT_SUMS, 1, STEP),
        full(2, {"stage": 0}, {}, 1, STEP),
        full(2, {"stage": 0}, FLOAT_ON_THE_WAY, 1, REDUCE),
    ],
)
def test_the_peak_of_a_run_is_the_plans(
    num_ranks: int,
    zero: Mapping[str, Any],
    more: Mapping[str, Any],
    accumulation_steps: int,
    instant: str,
    probes: Probes,
    tmp_path: Path,
) -> None:
    options = {"--gpus": str(num_ranks), "--dtype": "bfloat16", "--seq-len": "128"}
    path = make_plan(
        tmp_path,
        *(word for pair in options.items() for word in pair),
        model=MODEL_STATES_ALONE,
        zero=zero,
        accumulation_steps=accumulation_steps,
        more=more,
    )
    assert peak_instant(path) == instant
    answer = probes.run(kind="worker", plan=path, data=write_data(tmp_path), worldSize=num_ranks, steps=2)
    assert "failed" not in answer, answer
    measured = max(step["pool_bytes"]["hbm"] for step in answer["steps"])
    planned = peak_bytes(path)["hbm"]
    assert -ROUNDED_UP * planned <= measured - planned <= COUNTED_BY_NOBODY, (measured, planned)
