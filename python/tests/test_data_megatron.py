"""Megatron's pairs: documents of the index, and pairs that are damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fpdt.data.options import DataOptions
from fpdt.data.sources import open_corpus
from fpdt.errors import DataError
from tests.data_files import VOCAB, save_megatron

DOCUMENTS = [[1, 2, 3], [4], [5, 6, 7, 8]]


@pytest.mark.parametrize(("code", "dtype"), [(4, "<i4"), (8, "<u2"), (5, "<i8"), (1, "<u1")])
def test_documents_are_those_of_the_index(tmp_path: Path, code: int, dtype: str) -> None:
    path = save_megatron(tmp_path / "corpus.bin", DOCUMENTS, code, dtype)
    for given in (path, path.with_suffix(".idx")):
        corpus = open_corpus(DataOptions(given), VOCAB)
        assert corpus.documents is not None
        assert corpus.documents.starts.tolist() == [0, 3, 4, 8]
        assert corpus.tokens.take(np.arange(8)).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_document_may_be_several_sequences(tmp_path: Path) -> None:
    path = save_megatron(tmp_path / "corpus.bin", DOCUMENTS)
    index = path.with_suffix(".idx")
    table = np.array([0, 2, 2, 3], dtype="<i8").tobytes()
    index.write_bytes(index.read_bytes()[: -len(table)] + table)
    corpus = open_corpus(DataOptions(path), VOCAB)
    assert corpus.documents is not None and corpus.documents.starts.tolist() == [0, 4, 4, 8]


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"MMIDIDY", "begins with b'MMIDIDY.*a Megatron index with"),
        (9, b"\x02", "has version 2 and dtype code 4"),
        (17, b"\x07", "has version 1 and dtype code 7"),
        (18, b"\x09", "bytes, its header speaks of"),
        (46, b"\x09", "sequence 1 of .* does not follow"),
        (54, b"\x09", "sequence 2 of .* does not follow"),
        (70, b"\x01", "documents of .* are not all of its 3 sequences"),
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, at: int, value: bytes, message: str) -> None:
    path = save_megatron(tmp_path / "corpus.bin", DOCUMENTS)
    index = path.with_suffix(".idx")
    content = bytearray(index.read_bytes())
    content[at : at + len(value)] = value
    index.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_corpus(DataOptions(path), VOCAB)
    assert "preprocess_data.py" in caught.value.hint


def test_pairs_that_are_cut_short_or_alone_are_named(tmp_path: Path) -> None:
    path = save_megatron(tmp_path / "corpus.bin", DOCUMENTS)
    index = path.with_suffix(".idx")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"has 29 bytes, corpus\.idx speaks of 8 tokens of 4 bytes"):
        open_corpus(DataOptions(path), VOCAB)
    path.unlink()
    with pytest.raises(DataError, match=r"there is no .*corpus\.bin beside"):
        open_corpus(DataOptions(index), VOCAB)
    save_megatron(path, DOCUMENTS)
    index.write_bytes(index.read_bytes()[:20])
    with pytest.raises(DataError, match="begins with"):
        open_corpus(DataOptions(path), VOCAB)
