"""The comparison of gradient dumps that parity and mutation runs rest on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fpdt.run.gradients import write_gradients
from fpdt.testing.harness import JobError, compare


def dumps(folder: Path, left: dict[str, Tensor], right: dict[str, Tensor]) -> dict[str, Path]:
    write_gradients(left, folder / "left", 0)
    write_gradients(right, folder / "right", 0)
    return {"left": folder / "left", "right": folder / "right"}


def test_the_worst_tensor_counts(tmp_path: Path) -> None:
    right = {"a": torch.ones(4), "b": torch.ones(4), "c": torch.zeros(2)}
    left = {"a": torch.ones(4) * 1.5, "b": torch.ones(4) * 1.25, "c": torch.zeros(2)}
    assert compare(dumps(tmp_path, left, right)) == {"error": 0.5, "where": "step-000000.safetensors:a"}


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_nan_is_never_hidden_by_a_later_tensor(tmp_path: Path, name: str) -> None:
    right = {key: torch.ones(4) for key in "abc"}
    left = {**right, name: torch.full((4,), float("nan"))}
    found = compare(dumps(tmp_path, left, right))
    assert found["error"] is None
    assert found["where"].endswith(f":{name}")


def test_dumps_of_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="differ in names"):
        compare(dumps(tmp_path, {"a": torch.ones(1)}, {"b": torch.ones(1)}))
