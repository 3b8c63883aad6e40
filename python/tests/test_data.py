"""Token files, their slices, and the shares of ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fpdt.run.data import IGNORED_LABEL, DataError, Sequences, ShardedBatches, TokenFile, open_tokens


def sequences(path: Path, seq_len: int, dp: int = 1, steps: int = 1, vocab: int = 1000) -> Sequences:
    return Sequences(open_tokens(path, vocab), seq_len, dp, steps)


def save_ids(path: Path, ids: list[int]) -> Path:
    array = np.array(ids, dtype=np.int32)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        array.tofile(path)
    return path


def test_bytes_are_tokens_modulo_the_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(bytes([0, 1, 63, 64, 200]))
    assert sequences(path, 4, vocab=64).whole(0, 0, 0).tolist() == [0, 1, 63, 0, 200 % 64]


@pytest.mark.parametrize("suffix", [".npy", ".bin"])
def test_int32_ids_are_read_as_they_are(tmp_path: Path, suffix: str) -> None:
    path = save_ids(tmp_path / f"ids{suffix}", [5, 999, 0, 7])
    assert sequences(path, 3).whole(0, 0, 0).tolist() == [5, 999, 0, 7]


def test_slices_follow_each_other_over_replicas_then_micro_steps_then_steps_and_wrap(tmp_path: Path) -> None:
    path = save_ids(tmp_path / "ids.bin", list(range(23)))
    source = sequences(path, 3, dp=2, steps=2)
    order = [(step, micro, rank) for step in (0, 1) for micro in (0, 1) for rank in (0, 1)]
    assert [source.first_token(*where) for where in order] == [0, 4, 8, 12, 16, 0, 4, 8]


def test_ranks_share_a_sequence_in_rank_ordinal_order_with_shifted_labels_and_masked_padding(tmp_path: Path) -> None:
    path = save_ids(tmp_path / "ids.bin", [100 + i for i in range(12)])
    seq_len, chunks, ranks, count = 11, 3, 2, 2
    shards = [ShardedBatches(sequences(path, seq_len), chunks, count, ranks, rank, 0) for rank in range(ranks)]
    ids, labels = torch.full((12,), -1), torch.full((12,), -1)
    for rank, shard in enumerate(shards):
        batch = shard.read(0, 0)
        expected = [chunk * ranks * count + rank * count + i for chunk in range(chunks) for i in range(count)]
        assert batch.positions.tolist() == expected
        ids[batch.positions], labels[batch.positions] = batch.token_ids, batch.labels
    assert ids.tolist() == [*range(100, 111), 0]
    assert labels.tolist() == [*range(101, 112), IGNORED_LABEL]
    assert sum(shard.read(0, 0).num_valid for shard in shards) == seq_len


def test_a_rank_reads_only_its_own_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_ids(tmp_path / "ids.bin", [1, 2, 3, 4, 5, 6, 7, 8, 9])
    source = sequences(path, 8)
    seen: list[tuple[int, int]] = []
    read = TokenFile.read

    def spy(tokens: TokenFile, start: int, end: int) -> NDArray[np.int64]:
        seen.append((start, end))
        return read(tokens, start, end)

    monkeypatch.setattr(TokenFile, "read", spy)
    ShardedBatches(source, 2, 2, 2, 1, 0).read(0, 0)
    assert seen == [(2, 5), (6, 9)]


def test_errors_say_what_is_wrong_and_what_works(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no token file"):
        open_tokens(tmp_path / "none.txt", 10)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match="is empty"):
        open_tokens(tmp_path / "empty.txt", 10)
    (tmp_path / "odd.bin").write_bytes(b"12345")
    with pytest.raises(DataError, match="5 bytes"):
        open_tokens(tmp_path / "odd.bin", 10)
    np.save(tmp_path / "wide.npy", np.zeros(9, dtype=np.int64))
    with pytest.raises(DataError, match="int64"):
        open_tokens(tmp_path / "wide.npy", 10)
    short = save_ids(tmp_path / "short.bin", [1, 2, 3])
    with pytest.raises(DataError, match="has 3 tokens, a sequence of seqLen=3 takes 4") as caught:
        sequences(short, 3)
    assert "seqLen=2" in caught.value.hint
    with pytest.raises(DataError, match=r"token 2 of .* has id 3, outside the vocabulary of 3"):
        sequences(short, 2, vocab=3).whole(0, 0, 0)
