"""The rows of ranks: slices and packed documents, labels, positions, padding; and where a run goes on."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fpdt.data.batch import PADDING_TOKEN, Batch
from fpdt.data.options import DataOptions, LongDocuments
from fpdt.data.tokens import IGNORED_LABEL, Int64, TokenFile
from fpdt.errors import DataError
from tests.data_files import batches, opened, save_ids, save_megatron, share


def test_ranks_share_a_sequence_in_rank_ordinal_order_with_shifted_labels_and_masked_padding(tmp_path: Path) -> None:
    data = opened(save_ids(tmp_path / "ids.bin", [100 + i for i in range(12)]), 11)
    chunks, ranks, count = 3, 2, 2
    ids, labels = torch.full((12,), -1), torch.full((12,), -1)
    num_valid = 0
    for rank in range(ranks):
        batch = batches(data, share(chunks, count, ranks, rank)).read(0, 0)
        expected = [chunk * ranks * count + rank * count + i for chunk in range(chunks) for i in range(count)]
        assert batch.positions.tolist() == expected
        assert batch.document_starts == (0,) and batch.weights is None
        ids[batch.positions], labels[batch.positions] = batch.token_ids, batch.labels
        num_valid += batch.num_valid
    assert ids.tolist() == [*range(100, 111), 0]
    assert labels.tolist() == [*range(101, 112), IGNORED_LABEL]
    assert num_valid == 11


def test_a_rank_reads_only_its_own_tokens_and_the_labels_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = opened(save_ids(tmp_path / "ids.bin", range(1, 10)), 8)
    seen: list[list[int]] = []
    take = TokenFile.take

    def spy(tokens: TokenFile, numbers: Int64) -> Int64:
        # Threads of other tests may still read ahead.
        if tokens is data.corpus.tokens:
            seen.append(numbers.tolist())
        return take(tokens, numbers)

    monkeypatch.setattr(TokenFile, "take", spy)
    read = batches(data, share(2, 2, 2, 1))
    read.read(0, 0)
    read.close()
    assert seen[:2] == [[2, 3, 6, 7], [3, 4, 7, 8]]


def test_replicas_then_micro_steps_then_steps_take_the_next_sequence(tmp_path: Path) -> None:
    data = opened(save_ids(tmp_path / "ids.bin", range(36)), 3)
    order = [(step, micro, rank) for step in (0, 1) for micro in (0, 1) for rank in (0, 1)]
    firsts = [
        int(batches(data, share(1, 3, dp=2, data_rank=rank, steps=2)).read(step, micro).token_ids[0])
        for step, micro, rank in order
    ]
    assert firsts == [0, 4, 8, 12, 16, 20, 24, 28]


def whole(read: list[Batch], ranks: int, count: int) -> dict[str, Tensor]:
    """What ranks hold of a sequence, put together; one chunk."""
    assert len({batch.document_starts for batch in read}) == 1
    names = ("token_ids", "positions", "labels")
    return {name: torch.cat([getattr(batch, name) for batch in read]) for name in names}


def test_documents_keep_apart_in_labels_and_positions_and_padding_is_short_documents(tmp_path: Path) -> None:
    documents = [[1, 2, 3, 4, 5], [11, 12, 13], [21]]
    path = save_megatron(tmp_path / "corpus.bin", documents)
    data = opened(DataOptions(path, shuffle=False), 400, packs=True)
    read = [batches(data, share(1, 200, 2, rank)).read(0, 0) for rank in range(2)]
    assert read[0].document_starts == (0, 5, 8, 9, 137, 265, 393)
    found = whole(read, 2, 200)
    assert found["token_ids"][:9].tolist() == [1, 2, 3, 4, 5, 11, 12, 13, 21]
    assert found["labels"][:9].tolist() == [2, 3, 4, 5, -100, 12, 13, -100, -100]
    assert found["positions"][:9].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 0]
    assert (found["labels"][9:] == IGNORED_LABEL).all()
    assert found["positions"][9:].tolist() == [*range(128)] * 3 + [*range(7)]
    assert sum(batch.num_valid for batch in read) == 6 and sum(batch.weight_sum for batch in read) == 6.0


def test_without_packing_documents_follow_each_other_in_one(tmp_path: Path) -> None:
    path = save_megatron(tmp_path / "corpus.bin", [[1, 2, 3], [4, 5], [6, 7, 8, 9]])
    batch = batches(opened(path, 8), share(1, 8)).read(0, 0)
    assert batch.document_starts == (0,) and batch.positions.tolist() == list(range(8))
    assert batch.labels.tolist() == [2, 3, 4, 5, 6, 7, 8, 9]


def test_a_stream_in_a_plan_that_packs_is_one_document_with_its_padding_apart(tmp_path: Path) -> None:
    data = opened(save_ids(tmp_path / "ids.bin", range(21)), 20, packs=True)
    batch = batches(data, share(1, 24)).read(0, 0)
    assert batch.document_starts == (0, 20)
    assert batch.labels.tolist() == [*range(1, 21), *[IGNORED_LABEL] * 4]
    assert batch.positions.tolist() == [*range(20), *range(4)]


@pytest.mark.parametrize(
    ("how", "steps", "expected"),
    [("split", 3, [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10], [20, 21]]), ("truncate", 2, [[1, 2, 3, 4], [20, 21]])],
)
def test_long_documents_are_split_or_truncated(
    tmp_path: Path, how: LongDocuments, steps: int, expected: list[list[int]]
) -> None:
    path = save_megatron(tmp_path / "corpus.bin", [[*range(1, 11)], [20, 21]])
    read = batches(opened(DataOptions(path, long_documents=how, shuffle=False), 4, packs=True), share(1, 4))
    found: list[list[int]] = []
    for step in range(steps):
        batch = read.read(step, 0)
        documents = [batch.token_ids[a:b].tolist() for a, b in pairwise((*batch.document_starts, 4))]
        found += [ids for ids in documents if ids[0] != PADDING_TOKEN]
    assert sorted(found) == sorted(expected)


def test_long_and_empty_documents_are_named(tmp_path: Path) -> None:
    path = save_megatron(tmp_path / "long.bin", [[1], [*range(10)], [*range(12)]])
    with pytest.raises(
        DataError, match=r"document 2 of .*long.bin has 10 tokens.*seqLen=4; 2 of 3 documents"
    ) as caught:
        opened(path, 4, packs=True)
    assert "seqLen=12" in caught.value.hint and "--long-documents split" in caught.value.hint
    path = save_megatron(tmp_path / "empty.bin", [[1], [], [2]])
    with pytest.raises(DataError, match=r"document 2 of .*empty.bin is empty"):
        opened(path, 4, packs=True)


def test_choices_without_effect_are_refused(tmp_path: Path) -> None:
    flat, pair = save_ids(tmp_path / "ids.bin", range(9)), save_megatron(tmp_path / "pair.bin", [[1, 2], [3, 4, 5]])
    with pytest.raises(DataError, match=r"--long-documents is .*ids\.bin has no documents"):
        opened(DataOptions(flat, long_documents="split"), 4, packs=True)
    with pytest.raises(DataError, match=r"--long-documents is .*pair\.bin is not packed by this plan"):
        opened(DataOptions(pair, long_documents="split"), 4)
    for options in (DataOptions(flat, seed=3), DataOptions(pair, seed=3, shuffle=False)):
        with pytest.raises(DataError, match="--data-seed is of an order") as caught:
            opened(options, 4)
        assert "--shuffle" in caught.value.hint


def documents(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    return save_megatron(tmp_path / "corpus.bin", [[i] * int(rng.integers(1, 12)) for i in range(1, 200)])


def test_a_run_goes_on_where_another_stopped_with_another_number_of_replicas(tmp_path: Path) -> None:
    path = documents(tmp_path)
    data = opened(path, 16, packs=True)
    uninterrupted = [batches(data, share()).read(number, 0).token_ids.tolist() for number in range(60)]
    first = [batches(data, share(dp=2, data_rank=rank, steps=3)) for rank in range(2)]
    seen = [read.read(step, micro).token_ids.tolist() for step in range(2) for micro in range(3) for read in first]
    positions = [json.loads(json.dumps(read.position(2))) for read in first]
    assert positions[0] == positions[1] and positions[0]["sequences"] == 12
    again = batches(opened(path, 16, packs=True), share(steps=4))
    again.seek(positions[0], 2)
    assert again.position(2) == positions[0]
    # Steps may be counted on, or from 0.
    seen += [again.read(step, micro).token_ids.tolist() for step in (2, 3) for micro in range(4)]
    assert again.position(4)["sequences"] == 20
    anew = batches(opened(path, 16, packs=True), share(dp=1))
    anew.seek(again.position(4), 0)
    seen += [anew.read(step, 0).token_ids.tolist() for step in range(40)]
    assert seen == uninterrupted


def test_what_is_read_does_not_count_but_the_steps_before(tmp_path: Path) -> None:
    read = batches(opened(documents(tmp_path), 16, packs=True), share(steps=2))
    for _ in range(2):
        for micro in range(2):
            read.read(0, micro)
    # A step whose tokens were counted may be left out, where ranks stop before it.
    assert (read.position(0)["sequences"], read.position(1)["sequences"]) == (0, 2)


def test_a_run_does_not_go_on_with_other_data_or_another_order(tmp_path: Path) -> None:
    path = documents(tmp_path)
    position = batches(opened(path, 16, packs=True), share()).position(1)
    with pytest.raises(DataError, match="order of seed 7, this is that of seed 8") as caught:
        batches(opened(path, 16, packs=True, seed=8), share()).seek(position, 1)
    assert caught.value.hint == "give --shuffle --data-seed 7"
    with pytest.raises(DataError, match=r"packed into 16 tokens, longer ones: refuse, this one has .* 32 tokens"):
        batches(opened(path, 32, packs=True), share()).seek(position, 1)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for suffix in (".bin", ".idx"):
        path.with_suffix(suffix).rename(moved / f"renamed{suffix}")
    batches(opened(moved / "renamed.bin", 16, packs=True), share()).seek(position, 1)
    with (moved / "renamed.bin").open("r+b") as file:
        file.write(b"\x05")
    with pytest.raises(
        DataError, match=r"not the data that the run stopped on \(corpus.bin\): digest .* then"
    ) as caught:
        batches(opened(moved / "renamed.bin", 16, packs=True), share()).seek(position, 1)
    save_megatron(moved / "renamed.bin", [[1, 2, 3]])
    with pytest.raises(DataError, match=r"size \d+ then, \d+ now"):
        batches(opened(moved / "renamed.bin", 16, packs=True), share()).seek(position, 1)


def test_what_stands_in_a_sequence_has_a_name(tmp_path: Path) -> None:
    tokens = opened(save_ids(tmp_path / "ids.bin", range(36)), 3)
    stream = batches(tokens, share(1, 4, dp=2))
    # Slices have 4 tokens: sequence 3 is tokens 12 to 15.
    assert stream.name(1, 0, 1, 2) == "token 14 of ids.bin"
    assert stream.name(1, 0, 1) == "from token 12 of ids.bin on"
    assert stream.name(1, 0, 1, 3) == "padding"

    documents = save_megatron(tmp_path / "documents.bin", [[1, 2, 3], [4, 5], [6, 7, 8, 9]])
    packed = batches(opened(DataOptions(documents, shuffle=False), 6, packs=True), share(1, 8))
    assert packed.name(1, 0, 0) == "document 2 and document 3 of documents.bin"
    assert packed.name(1, 0, 0, 1) == "document 2 of documents.bin"
    assert packed.name(1, 0, 0, 2) == "document 3 of documents.bin"
    packed.close()
    stream.close()
