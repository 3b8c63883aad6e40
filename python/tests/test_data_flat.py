"""Files that are token ids as they are, and their slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fpdt.data.options import DataOptions
from fpdt.data.sources import TrainingData
from fpdt.errors import DataError
from tests.data_files import opened, save_ids


def tokens_of(data: TrainingData, number: int) -> list[int]:
    """Inputs of sequence `number` and the label of the last."""
    layout = data.sequences.layout(number)
    first = int(layout.first[0])
    found: list[int] = data.corpus.tokens.take(np.arange(first, first + layout.num_rows + 1)).tolist()
    return found


def test_bytes_are_tokens_modulo_the_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(bytes([0, 1, 63, 64, 200]))
    assert tokens_of(opened(path, 4, vocab=64), 0) == [0, 1, 63, 0, 200 % 64]


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(".bin", "int32"), (".npy", "int32"), (".npy", "uint16"), (".npy", "int64"), (".npy", "uint32")],
)
def test_ids_are_read_as_they_are(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = save_ids(tmp_path / f"ids{suffix}", [5, 999, 0, 7], dtype)
    assert tokens_of(opened(path, 3), 0) == [5, 999, 0, 7]


def test_a_bin_of_uint16_is_said_to_be_one(tmp_path: Path) -> None:
    path = save_ids(tmp_path / "ids.bin", [5, 60000, 0, 7], "uint16")
    assert tokens_of(opened(DataOptions(path, dtype="uint16"), 3, vocab=60001), 0) == [5, 60000, 0, 7]


def test_slices_follow_each_other_and_wrap(tmp_path: Path) -> None:
    data = opened(save_ids(tmp_path / "ids.bin", range(23)), 3)
    assert [int(data.sequences.layout(number).first[0]) for number in range(8)] == [0, 4, 8, 12, 16, 0, 4, 8]


def test_slices_are_shuffled_where_asked_each_epoch_anew(tmp_path: Path) -> None:
    path = save_ids(tmp_path / "ids.bin", range(400))
    data = opened(DataOptions(path, shuffle=True), 3)
    epochs = [[int(data.sequences.layout(100 * epoch + i).first[0]) for i in range(100)] for epoch in range(2)]
    assert all(sorted(starts) == list(range(0, 400, 4)) for starts in epochs)
    assert epochs[0] != epochs[1] and epochs[0] != sorted(epochs[0])
    again = opened(DataOptions(path, shuffle=True), 3, seed=7)
    assert int(again.sequences.layout(142).first[0]) == epochs[1][42]
    other = opened(DataOptions(path, shuffle=True, seed=8), 3)
    assert [int(other.sequences.layout(i).first[0]) for i in range(100)] != epochs[0]


def test_errors_say_what_is_wrong_and_what_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="there is no data file"):
        opened(tmp_path / "none.txt", 3)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match="is empty"):
        opened(tmp_path / "empty.txt", 3)
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda *_: False)
        with pytest.raises(DataError, match=r"odd\.txt may not be read"):
            opened(save_ids(tmp_path / "odd.txt", [1]), 3)
    (tmp_path / "odd.bin").write_bytes(b"12345")
    with pytest.raises(DataError, match="5 bytes") as caught:
        opened(tmp_path / "odd.bin", 3)
    assert "--data-dtype" in caught.value.hint
    np.save(tmp_path / "real.npy", np.zeros(9))
    with pytest.raises(DataError, match="float64"):
        opened(tmp_path / "real.npy", 3)
    (tmp_path / "text.npy").write_text("not an array")
    with pytest.raises(DataError, match=r"is not an \.npy array"):
        opened(tmp_path / "text.npy", 3)
    short = save_ids(tmp_path / "short.bin", [1, 2, 3])
    with pytest.raises(DataError, match="has 3 tokens, a sequence of seqLen=3 takes 4") as caught:
        opened(short, 3)
    assert "seqLen=2" in caught.value.hint
    with pytest.raises(DataError, match=r"token 2 of .* has id 3, outside the vocabulary of 3"):
        tokens_of(opened(short, 2, vocab=3), 0)
