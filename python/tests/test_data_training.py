"""Documents through a tokenizer, packed, on ranks: the losses are those of each document alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fpdt.data.batches import Batches, open_batches
from fpdt.data.demand import plan_demand
from fpdt.data.options import DataOptions
from fpdt.data.preparation import prepare
from fpdt.data.rows import Share
from fpdt.data.sources import open_data
from fpdt.plan import Plan, load_plan
from fpdt.testing.packed import Document
from fpdt.testing.reference import ReferenceTrainer
from tests.planned import MODEL, ZERO_3, run_planner, run_ranks, write_data
from tests.small_tokenizers import VOCAB, save_tokenizer

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "and", "the", "dog", "sleeps", "on"]
RANKS, ACCUMULATION, STEPS = 2, 2, 2


def write_chat(path: Path, count: int = 40) -> Path:
    """Conversations of one or two turns, of different lengths."""
    lines = []
    for number in range(count):
        messages: list[Mapping[str, Any]] = []
        for turn in range(1 + number % 2):
            words = [WORDS[(number * 3 + turn + i) % len(WORDS)] for i in range(1 + (number * 5 + turn) % 3)]
            messages.append({"role": "user", "content": " ".join(words)})
            messages.append({"role": "assistant", "content": " ".join(reversed(words))})
        lines.append(json.dumps({"messages": messages, "weight": 0.5 + number % 3}))
    path.write_text("\n".join(lines) + "\n")
    return path


def packing_plan(folder: Path) -> Path:
    """Two ranks of one sequence of 160 tokens in two chunks."""
    (folder / "model.json").write_text(json.dumps({**MODEL, "vocab_size": VOCAB}))
    deepspeed = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": ACCUMULATION,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
        "zero_optimization": ZERO_3,
    }
    (folder / "ds_config.json").write_text(json.dumps(deepspeed))
    shape = ["--gpus", str(RANKS), "--gpu", "cpu", "--seq-len", "96", "--chunks", "2", "--dtype", "float32"]
    files = ["--model", "model.json", "--deepspeed", "ds_config.json", "--output", "plan.json"]
    run_planner(folder, *files, *shape, "--packing", "--steps", str(STEPS))
    return folder / "plan.json"


@dataclass(frozen=True)
class ReadDocuments:
    """The documents of whole sequences, as a run reads them."""

    plan: Plan
    batches: Batches

    def documents(self, step: int, micro_step: int, data_rank: int) -> list[Document]:
        batch = self.batches.read(step, micro_step)
        weights = torch.ones(len(batch.labels)) if batch.weights is None else batch.weights
        ends = [*batch.document_starts[1:], len(batch.labels)]
        return [
            Document(batch.token_ids[start:end], batch.labels[start:end], weights[start:end])
            for start, end in zip(batch.document_starts, ends, strict=True)
        ]


def whole_batches(plan: Plan, options: DataOptions) -> Batches:
    share = Share.of_rank(plan, 0)
    whole = Share(1, share.num_rows, 1, 0, 1, 0, share.accumulation_steps)
    return Batches(open_data(options, plan_demand(plan)), whole)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packing_plan(tmp_path_factory.mktemp("plan"))


def test_packed_conversations_train_as_each_would_alone(planned: Path, tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    data = write_chat(tmp_path / "chat.jsonl")
    options = DataOptions(data, tokenizer, weights_field="weight")
    plan = load_plan(planned)
    prepare(options, VOCAB)
    flags = ("--tokenizer", str(tokenizer), "--data-weights", "weight")
    found = run_ranks(RANKS, "--plan", str(planned), "--data", str(data), *flags)
    assert [rank.code for rank in found] == [0] * RANKS, found[0].err
    losses = [step["loss"] for step in found[0].steps]
    batches = whole_batches(plan, options)
    assert len(batches.read(0, 0).document_starts) > 4
    trainer = ReferenceTrainer(plan, write_data(tmp_path), torch.float64, documents=0)
    trainer._packed = ReadDocuments(plan, batches)  # type: ignore[assignment]
    expected = [trainer.step(step, None) for step in range(STEPS)]
    batches.close()
    assert losses == pytest.approx(expected, rel=1e-5)
    # Every third document weighs five times the first: without weights the mean is another.
    assert expected[0] != pytest.approx(_unweighted(plan, data, tokenizer, tmp_path), rel=1e-4)


def _unweighted(plan: Plan, data: Path, tokenizer: Path, folder: Path) -> float:
    options = DataOptions(data, tokenizer)
    prepare(options, VOCAB)
    batches = whole_batches(plan, options)
    trainer = ReferenceTrainer(plan, write_data(folder), torch.float64, documents=0)
    trainer._packed = ReadDocuments(plan, batches)  # type: ignore[assignment]
    loss = trainer.step(0, None)
    batches.close()
    return loss


def test_ranks_hold_the_rows_of_one_sequence(planned: Path, tmp_path: Path) -> None:
    options = DataOptions(write_chat(tmp_path / "chat.jsonl"), save_tokenizer(tmp_path / "tokenizer"))
    prepare(options, VOCAB)
    plan = load_plan(planned)
    together = whole_batches(plan, options)
    expected = together.read(1, 1)
    found = torch.full_like(expected.labels, -1)
    for rank in range(RANKS):
        read = open_batches(plan, options, rank)
        batch = read.read(1, 1)
        assert batch.document_starts == expected.document_starts
        found[torch.from_numpy(Share.of_rank(plan, rank).rows())] = batch.labels
        read.close()
    together.close()
    assert torch.equal(found, expected.labels)
