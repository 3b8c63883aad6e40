"""Packed documents through the streamed layers, against the untouched model on each document alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fpdt.attention import CAUSAL, Documents
from fpdt.data.rows import Share
from fpdt.data.whole import plan_sequences
from fpdt.devices import CopyMode
from fpdt.ops.loss import cross_entropy
from fpdt.plan import Plan, load_plan
from fpdt.run.planned_batches import PlannedBatches
from fpdt.run.program import LossScale
from fpdt.testing.packed import PackedBatches, PackedSequences, document_lengths
from fpdt.testing.reference import document_loss_sum
from tests.planned import MODEL, make_plan, write_data
from tests.test_gradients import TOLERANCE, Streamed, built, gradients, worst_error

SEQ_LEN, NUM_CHUNKS = 59, 4
"""Chunks of 15, the last one with padding."""
PLACES: dict[str, Any] = {
    "layers": [0, 2],
    "keyValues": "host",
    "keyValueGradients": "host",
    "attentionOutput": "host",
    "backwardOrder": "queryOuterDescending",
}
STRATEGIES = {
    "fetched, descending": PLACES,
    "fetched, ascending": {**PLACES, "keyValueGradients": "hbm", "backwardOrder": "keyValueOuterAscending"},
    "at hand, recomputed": {
        **PLACES,
        "keyValues": "hbm",
        "keyValueGradients": "hbm",
        "attentionOutput": "recompute",
    },
}
LENGTHS = {
    "one document": (59,),
    "documents of a token": (1, 1, 1, 12, 1, 43),
    "a document that begins with a chunk": (15, 15, 29),
    "long and short ones across chunks": (20, 4, 30, 5),
}


@pytest.fixture(scope="module", params=STRATEGIES)
def plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planned(tmp_path_factory.mktemp("plan"), STRATEGIES[request.param])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def planned(folder: Path, places: dict[str, Any], *options: str, **more: Any) -> Plan:
    (folder / "strategy.json").write_text(json.dumps({"layers": [places]}))
    sizes = ("--seq-len", str(SEQ_LEN), "--chunks", str(NUM_CHUNKS), "--strategy", "strategy.json")
    return load_plan(make_plan(folder, *sizes, *options, zero={"stage": 0}, packing=True, **more))


def packed(plan: Plan, data: Path, lengths: tuple[int, ...], weighted: bool = True) -> PackedBatches:
    sequences = PackedSequences(plan_sequences(plan, data), 3, lengths, weighted)
    return PackedBatches(sequences, Share.of_rank(plan, 0))


def expected(plan: Plan, batches: PackedBatches) -> tuple[float, dict[str, Tensor]]:
    """Mean loss, and its gradients in fp64: document by document."""
    model = built(plan, torch.float64, with_buffers=True)
    weight_sum = batches.read(0, 0).weight_sum
    documents = batches.packed.documents(0, 0, 0)
    losses = [document_loss_sum(model, one) / weight_sum for one in documents]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    return float(sum(float(loss.detach()) for loss in losses)), gradients(model)


def run(plan: Plan, batches: PackedBatches, copy_mode: CopyMode = "eager") -> tuple[float, Streamed]:
    ours = Streamed(plan, batches, copy_mode)
    loss = ours.loss(LossScale(1, 1, 1.0, batches.read(0, 0).weight_sum))
    loss.backward()  # type: ignore[no-untyped-call]
    ours.program.finish_step(lambda: None)
    return float(loss.detach()), ours


@pytest.mark.parametrize("name", LENGTHS)
def test_gradients_are_those_of_each_document_alone(plan: Plan, data: Path, name: str) -> None:
    batches = packed(plan, data, LENGTHS[name])
    loss, ours = run(plan, batches)
    wanted, reference = expected(plan, batches)
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert worst_error(gradients(ours.model), reference) < TOLERANCE


@pytest.mark.parametrize("copy_mode", ["lazy", "random"])
def test_gradients_are_the_same_in_every_order(plan: Plan, data: Path, copy_mode: CopyMode) -> None:
    batches = packed(plan, data, LENGTHS["long and short ones across chunks"])
    _, ours = run(plan, batches, copy_mode)
    assert worst_error(gradients(ours.model), expected(plan, batches)[1]) < TOLERANCE


def test_windows_are_cut_by_documents(tmp_path: Path, data: Path) -> None:
    model = {**MODEL, "model_type": "mistral", "sliding_window": 9}
    windowed = planned(tmp_path, STRATEGIES["fetched, descending"], "--attention", "reference", model=model)
    for lengths in LENGTHS.values():
        batches = packed(windowed, data, lengths)
        _, ours = run(windowed, batches)
        assert worst_error(gradients(ours.model), expected(windowed, batches)[1]) < TOLERANCE


def test_work_is_that_of_the_documents(plan: Plan, data: Path) -> None:
    """Pairs of queries and keys, padding apart, and copied bytes."""
    lengths = LENGTHS["long and short ones across chunks"]
    batches = packed(plan, data, lengths, weighted=False)
    _, ours = run(plan, batches)
    padding = document_lengths(batches.read(0, 0), plan)[len(lengths) :]
    of_documents = plan.num_layers * sum(n * (n + 1) // 2 for n in (*lengths, *padding))
    documents = ours.program.documents
    assert documents is not None
    passes = 2 if plan.strategy["layers"][0]["attentionOutput"] == "recompute" else 1
    assert documents.pairs == {"attn": passes * of_documents, "attnBwd": of_documents}


def test_a_later_micro_step_has_its_own_documents(plan: Plan, data: Path) -> None:
    """What one leaves out, the next does not: sections are linked once."""
    first = packed(plan, data, LENGTHS["documents of a token"])
    ours = Streamed(plan, first)
    scale = LossScale(1, 1, 1.0, first.read(0, 0).weight_sum)
    ours.loss(scale).backward()  # type: ignore[no-untyped-call]
    ours.program.finish_step(lambda: None)
    ours.model.zero_grad()
    then = packed(plan, data, LENGTHS["one document"])
    ours.batches = PlannedBatches(plan, then)
    ours.loss(LossScale(1, 1, 1.0, then.read(0, 0).weight_sum)).backward()  # type: ignore[no-untyped-call]
    assert worst_error(gradients(ours.model), expected(plan, then)[1]) < TOLERANCE


def test_copies_between_documents_are_left_out(data: Path, tmp_path: Path) -> None:
    fetched = planned(tmp_path, STRATEGIES["fetched, ascending"])
    copied = []
    for name in ("one document", "a document that begins with a chunk"):
        _, ours = run(fetched, packed(fetched, data, LENGTHS[name]))
        copied.append(ours.runtime.take_copied_bytes())
    assert copied[1]["h2d"] < copied[0]["h2d"]


def test_weights_multiply_losses_and_their_gradients() -> None:
    torch.manual_seed(2)
    logits, labels = torch.randn(5, 7, dtype=torch.float64), torch.tensor([3, -100, 0, 6, 2])
    weights = torch.tensor([0.5, 9.0, 0.0, 1.0, 2.0])
    losses, slopes = cross_entropy(logits.clone(), labels, 3.0)
    weighted, weighted_slopes = cross_entropy(logits.clone(), labels, 3.0, weights)
    torch.testing.assert_close(weighted, losses * weights)
    torch.testing.assert_close(weighted_slopes, slopes * weights[:, None])
    assert weighted[1] == 0
    plain, plain_slopes = cross_entropy(logits.clone(), labels, 3.0, torch.ones(5))
    assert torch.equal(plain, losses)
    assert torch.equal(plain_slopes, slopes)


def test_pieces_are_cut_anew_where_documents_change() -> None:
    documents = Documents()
    whole = documents.pieces((0, 8), (0, 8), CAUSAL)
    documents.begin((0, 3))
    assert len(documents.pieces((0, 8), (0, 8), CAUSAL)) == 2
    documents.begin((0,))
    assert documents.pieces((0, 8), (0, 8), CAUSAL) == whole
