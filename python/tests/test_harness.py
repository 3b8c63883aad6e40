"""Jobs of the harness: strict about what they are asked, and the comparison that parity and mutation runs rest on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from fpdt.run.gradients import write_gradients
from fpdt.testing.children import JobError
from fpdt.testing.harness import answer_job, compare, run_options


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


def test_a_job_with_a_key_that_nobody_reads_is_refused() -> None:
    answer = answer_job({"id": 7, "kind": "compare", "left": "a", "right": "b", "timeout": 3})
    assert (answer["id"], answer["failed"]) == (7, "a job of kind compare has no timeout")


def test_options_of_a_job_are_those_of_the_protocol() -> None:
    options = run_options({"data": "d", "dumpGrads": "g", "options": {"copy_mode": "lazy", "disk_folder": "/scratch"}})
    assert (options.dump_grads, options.copy_mode, options.disk_folder) == ("g", "lazy", "/scratch")
    assert options.poison
    with pytest.raises(ValidationError, match="attention"):
        run_options({"data": "d", "options": {"attention": None}})


def test_the_harness_answers_line_by_line_and_ends_with_its_input(tmp_path: Path) -> None:
    dumps(tmp_path, {"a": torch.ones(4)}, {"a": torch.ones(4)})
    job = {"id": 1, "kind": "compare", "left": str(tmp_path / "left"), "right": str(tmp_path / "right")}
    done = subprocess.run(
        [sys.executable, "-m", "fpdt.testing.harness"],
        input=json.dumps(job) + "\n" + json.dumps({**job, "id": 2, "left": str(tmp_path)}) + "\n",
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
        check=True,
    )
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first == {"id": 1, "error": 0.0, "where": ""}
    assert (second["id"], second["failed"][:28]) == (2, "gradient dumps differ in fil")
