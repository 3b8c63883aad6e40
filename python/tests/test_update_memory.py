"""Steps whose update is their peak: torch's Adam makes temporaries as large as what it updates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Probes
from tests.planned import MODEL, ZERO_3, make_plan, peak_bytes, write_data
from tests.rounds import full

MODEL_STATES_ALONE: Mapping[str, Any] = {
    **MODEL,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "vocab_size": 512,
}
"""Against which 128 tokens are nothing."""
ADAM = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}
COUNTED_BY_NOBODY = 4096
"""Beside model states and temporaries: norms, flags and losses."""
ROUNDED_UP = 0.006
"""Of an optimizer whose update takes less than what comes before it."""


@pytest.mark.parametrize(
    ("zero", "dtype", "optimizer"),
    [
        full({"stage": 1}, "bfloat16", ADAM),
        ({"stage": 2}, "float32", ADAM),
        full(ZERO_3, "float32", ADAM),
        full(ZERO_3, "bfloat16", ADAM),
        (ZERO_3, "bfloat16", {"type": "SGD", "params": {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0.1}}),
        full(ZERO_3, "bfloat16", {"type": "Adagrad", "params": {"lr": 1e-3, "weight_decay": 0.1}}),
        full({"stage": 0}, "bfloat16", {"type": "RMSprop", "params": {"lr": 1e-3, "weight_decay": 0.1}}),
        full({"stage": 2}, "bfloat16", {"type": "RMSprop", "params": {"lr": 1e-3, "momentum": 0.9, "centered": True}}),
        full({"stage": 1}, "bfloat16", {"type": "Adamax", "params": {"lr": 1e-3}}),
    ],
)
def test_the_peak_of_a_run_is_the_plans(
    zero: Mapping[str, Any], dtype: str, optimizer: Mapping[str, Any], probes: Probes, tmp_path: Path
) -> None:
    small = {"reduce_bucket_size": 65536, **zero}
    path = make_plan(
        tmp_path,
        *("--gpus", "2", "--dtype", dtype, "--seq-len", "128"),
        model=MODEL_STATES_ALONE,
        zero=small,
        more={"optimizer": optimizer, "zero_allow_untested_optimizer": True},
    )
    answer = probes.run(kind="worker", plan=path, data=write_data(tmp_path), worldSize=2, steps=2)
    assert "failed" not in answer, answer
    measured = max(step["pool_bytes"]["hbm"] for step in answer["steps"])
    planned = peak_bytes(path)["hbm"]
    assert -ROUNDED_UP * planned <= measured - planned <= COUNTED_BY_NOBODY, (measured, planned)
