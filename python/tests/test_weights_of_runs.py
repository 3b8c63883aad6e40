"""Runs that start from a folder and write one: at every ZeRO stage the weights are those of the unsharded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fpdt.export import export_plan
from fpdt.plan import load_plan
from fpdt.testing.reference import ReferenceTrainer
from tests.conftest import Probes
from tests.planned import MODEL, ZERO_3, make_plan, write_data

TIED = {**MODEL, "tie_word_embeddings": True}


@pytest.mark.parametrize(("stage", "model"), [(0, MODEL), (2, TIED), (3, TIED)])
def test_a_run_reads_and_writes_folders(stage: int, model: Any, probes: Probes, tmp_path: Path) -> None:
    """Two ranks, two steps: from a folder as from the seed, and the folder written is the reference's model then."""
    zero = {**ZERO_3, "stage": stage} if stage == 3 else {"stage": stage}
    path, data = make_plan(tmp_path, "--gpus", "2", model=model, zero=zero), write_data(tmp_path)
    export_plan(str(path), str(tmp_path / "start"), None)
    job = {"plan": path, "data": data, "worldSize": 2, "steps": 2}
    seeded = probes.run(kind="worker", **job)
    options = {"weights": str(tmp_path / "start"), "export": str(tmp_path / "end")}
    loaded = probes.run(kind="worker", options=options, **job)
    assert "failed" not in loaded, loaded
    assert loaded["losses"] == seeded["losses"]

    reference = ReferenceTrainer(load_plan(path), data, torch.float64, tmp_path / "start")
    before = {name: weight.detach().clone() for name, weight in reference.model.named_parameters()}
    for step in range(2):
        reference.step(step, None)
    written = load_file(tmp_path / "end" / "model.safetensors")
    assert written.keys() == before.keys()
    for name, weight in reference.model.named_parameters():
        moved = (weight.detach() - before[name]).norm()
        # Adam divides by the root of squared gradients: rounding of those near zero is a part of an update.
        assert float((written[name].double() - weight.detach()).norm()) <= 1e-2 * float(moved), name
