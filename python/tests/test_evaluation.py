"""Loss on held-out data: Hugging Face's on the same tokens, and nothing of training changes by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fpdt.plan import load_plan
from fpdt.testing.reference import ReferenceTrainer, token_loss_sum
from tests.conftest import Probes
from tests.data_files import save_megatron
from tests.planned import MODEL, ZERO_3, make_plan, write_data
from tests.rounds import core, full
from tests.test_half import zero_of

AHEAD: Mapping[str, Any] = {"stage": 3, "stage3_param_persistence_threshold": 100, "reduce_bucket_size": 4096}
"""Stage 3 that fetches ahead and keeps what it is about to use again, as DeepSpeed does when left alone."""
SEQ_LEN = 96


def held_out(folder: Path, num_sequences: int, vocab_size: int = int(MODEL["vocab_size"])) -> Path:
    path = folder / "held_out.bin"
    ids = np.random.default_rng(7).integers(0, vocab_size, num_sequences * (SEQ_LEN + 1) + 5)
    path.write_bytes(ids.astype("<i4").tobytes())
    return path


def reference_losses(plan: Path, data: Path, tokens: Path, steps: Sequence[int], num_sequences: int) -> list[float]:
    """Of the unsharded model in fp64 after so many steps on `data`, on the first sequences of `tokens`."""
    trainer = ReferenceTrainer(load_plan(plan), data, torch.float64)
    size = SEQ_LEN + 1
    found = np.fromfile(tokens, "<i4", num_sequences * size).astype(np.int64)
    ids = torch.from_numpy(found).view(num_sequences, size)
    losses: list[float] = []
    num_done = 0
    for until in steps:
        while num_done < until:
            trainer.step(num_done, None)
            num_done += 1
        with torch.no_grad():
            losses.append(sum(float(token_loss_sum(trainer.model, one)) for one in ids) / (num_sequences * SEQ_LEN))
    return losses


CASES: Mapping[str, tuple[tuple[str, ...], Mapping[str, Any], str]] = {
    "stage 0": (("--policy", "fpdt"), zero_of(0), "random"),
    "stage 1": (("--policy", "auto"), zero_of(1), "eager"),
    "stage 2, other chunks": (("--policy", "fpdt", "--chunks", "4", "--segment-layers", "2"), zero_of(2), "lazy"),
    "stage 3": (("--policy", "ulysses-offload", "--chunks", "1"), ZERO_3, "random"),
    "stage 3, ahead": (("--policy", "auto", "--loss-tiles", "3"), AHEAD, "lazy"),
}
"""Options of the plan, ZeRO's, and when copies run."""


@pytest.mark.parametrize("case", core(CASES, ("stage 3, ahead",)))
def test_an_evaluation_is_exact_and_changes_nothing_of_training(case: str, probes: Probes, tmp_path: Path) -> None:
    options, zero, copy_mode = CASES[case]
    path = make_plan(tmp_path, "--gpus", "2", *options, zero=zero, evaluate=True)
    assert load_plan(path).evaluation_turns
    data, tokens = write_data(tmp_path), held_out(tmp_path, 3)
    job: dict[str, Any] = {"kind": "worker", "plan": path, "data": data, "steps": 5, "worldSize": 2}
    modes = {"copy_mode": copy_mode, "seed": 3}
    without = probes.run(**job, options=modes)
    evaluation = {"data": str(tokens), "sequences": None, "every": 2}
    answer = probes.run(**job, options={**modes, "evaluation": evaluation})
    assert "failed" not in answer, answer
    assert "failed" not in without, without
    assert answer["losses"] == without["losses"]
    assert [one["step"] for one in answer["evaluations"]] == [2, 4, 5]
    assert {one["num_tokens"] for one in answer["evaluations"]} == {3 * SEQ_LEN}
    expected = reference_losses(path, data, tokens, [2, 4, 5], 3)
    assert [one["loss"] for one in answer["evaluations"]] == pytest.approx(expected, rel=2e-6)


@pytest.mark.full
def test_an_evaluation_may_come_before_the_first_step(probes: Probes, tmp_path: Path) -> None:
    path = make_plan(tmp_path, "--gpus", "2", zero=AHEAD, evaluate=True)
    data, tokens = write_data(tmp_path), held_out(tmp_path, 4)
    evaluation = {"data": str(tokens), "sequences": 2, "every": None}
    job: dict[str, Any] = {"kind": "worker", "plan": path, "data": data, "worldSize": 2}
    answer = probes.run(**{**job, "steps": 0}, options={"evaluation": evaluation})
    assert "failed" not in answer, answer
    assert [one["num_sequences"] for one in answer["evaluations"]] == [2]
    assert [answer["evaluations"][0]["loss"]] == pytest.approx(reference_losses(path, data, tokens, [0], 2), rel=2e-6)
    first = probes.run(**{**job, "kind": "evaluatedFirst", "steps": 4}, options={"evaluation": evaluation})
    assert "failed" not in first, first
    assert first["losses"] == probes.run(**{**job, "steps": 4})["losses"]


def test_replicas_evaluate_a_sequence_each_and_leave_what_fills_no_round(probes: Probes, tmp_path: Path) -> None:
    path = make_plan(tmp_path, "--gpus", "2", "--data-parallel", "2", evaluate=True, accumulation_steps=2)
    data, tokens = write_data(tmp_path), held_out(tmp_path, 5)
    evaluation = {"data": str(tokens), "sequences": None, "every": None}
    job: dict[str, Any] = {"kind": "worker", "plan": path, "data": data, "steps": 1, "worldSize": 2}
    answer = probes.run(**job, options={"evaluation": evaluation})
    assert "failed" not in answer, answer
    [one] = answer["evaluations"]
    assert (one["num_sequences"], one["num_tokens"]) == (4, 4 * SEQ_LEN)
    assert [one["loss"]] == pytest.approx(reference_losses(path, data, tokens, [1], 4), rel=2e-6)


def test_packed_documents_are_evaluated_each_alone_and_weigh_the_same(probes: Probes, tmp_path: Path) -> None:
    """By a plan of four chunks that documents do not keep to."""
    path = make_plan(tmp_path, "--gpus", "2", "--chunks", "4", evaluate=True, packing=True)
    generator = np.random.default_rng(3)
    lengths = [96, 1, 2, 57, 33, 40, 12, 80, 5]
    documents = [generator.integers(0, int(MODEL["vocab_size"]), length).tolist() for length in lengths]
    held = save_megatron(tmp_path / "held.bin", documents)
    evaluation = {"data": str(held), "sequences": None, "every": None}
    job: dict[str, Any] = {"kind": "worker", "plan": path, "data": str(held), "steps": 1, "worldSize": 2}
    answer = probes.run(**job, options={"evaluation": evaluation, "copy_mode": "lazy", "poison": True})
    assert "failed" not in answer, answer
    [one] = answer["evaluations"]
    num_targets = sum(length - 1 for length in lengths)
    assert one["num_tokens"] == num_targets
    before = probes.run(**{**job, "steps": 0}, options={"evaluation": evaluation})
    model = ReferenceTrainer(load_plan(path), write_data(tmp_path), torch.float64).model
    with torch.no_grad():
        losses = [float(token_loss_sum(model, torch.tensor(ids))) for ids in documents if len(ids) > 1]
    assert before["evaluations"][0]["loss"] == pytest.approx(sum(losses) / num_targets, rel=2e-6)
    assert one["loss"] != before["evaluations"][0]["loss"]


@pytest.mark.parametrize(
    ("num_sequences", "asked", "problem"),
    [
        (0, None, "a sequence of seqLen=96 takes 97"),
        (1, None, "1 sequences are to be evaluated on 2 replicas, which take one each"),
        full(4, 1, "1 sequences are to be evaluated on 2 replicas, which take one each"),
        (3, 4, "4 sequences are to be evaluated, and "),
    ],
)
def test_data_that_is_too_short_is_refused_before_a_model_is_built(
    num_sequences: int, asked: int | None, problem: str, probes: Probes, tmp_path: Path
) -> None:
    path = make_plan(tmp_path, "--gpus", "2", "--data-parallel", "2", evaluate=True)
    evaluation = {"data": str(held_out(tmp_path, num_sequences)), "sequences": asked, "every": None}
    job: dict[str, Any] = {"kind": "worker", "plan": path, "data": write_data(tmp_path), "worldSize": 2}
    answer = probes.run(**job, options={"evaluation": evaluation})
    assert problem in answer["failed"], answer


def test_a_plan_without_the_program_says_how_to_plan(probes: Probes, tmp_path: Path) -> None:
    path = make_plan(tmp_path)
    evaluation = {"data": str(held_out(tmp_path, 2)), "sequences": None, "every": None}
    job: dict[str, Any] = {"kind": "worker", "plan": path, "data": write_data(tmp_path), "worldSize": 1}
    answer = probes.run(**job, options={"evaluation": evaluation})
    assert "the plan has no program that does" in answer["failed"], answer
