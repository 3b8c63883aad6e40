"""Small files of tokens and documents, and the batches of ranks on them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from fpdt.data.batches import Batches
from fpdt.data.corpus import Corpus
from fpdt.data.demand import Demand
from fpdt.data.options import DataOptions
from fpdt.data.rows import Share
from fpdt.data.sources import TrainingData, open_data

VOCAB = 1000


def save_ids(path: Path, ids: Sequence[int], dtype: str = "int32") -> Path:
    array = np.array(ids, dtype=dtype)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        array.tofile(path)
    return path


def save_megatron(path: Path, documents: Sequence[Sequence[int]], code: int = 4, dtype: str = "<i4") -> Path:
    """The pair of `path`, a `.bin`: a sequence a document."""
    save_ids(path, [token for document in documents for token in document], dtype)
    lengths = np.array([len(document) for document in documents], dtype="<i4")
    places = (np.cumsum(lengths) - lengths).astype("<i8") * np.dtype(dtype).itemsize
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(documents), len(documents) + 1)
    table = np.arange(len(documents) + 1, dtype="<i8")
    path.with_suffix(".idx").write_bytes(header + lengths.tobytes() + places.tobytes() + table.tobytes())
    return path


def opened(
    options: DataOptions | Path, seq_len: int, *, packs: bool = False, vocab: int = VOCAB, seed: int = 7
) -> TrainingData:
    options = options if isinstance(options, DataOptions) else DataOptions(options)
    return open_data(options, Demand(vocab, seq_len, packs, seed))


def share(
    chunks: int = 1, count: int = 16, ranks: int = 1, rank: int = 0, dp: int = 1, data_rank: int = 0, steps: int = 1
) -> Share:
    """Of a rank: `chunks` of `count` rows each, `ranks` of a sequence, `dp` replicas, `steps` of accumulation."""
    return Share(chunks, count, ranks, rank, dp, data_rank, steps)


def batches(data: TrainingData, of: Share) -> Batches:
    return Batches(data, of)


def documents_of(corpus: Corpus) -> list[list[int]]:
    """The ids of each."""
    assert corpus.documents is not None
    ids: list[int] = corpus.tokens.take(np.arange(len(corpus.tokens))).tolist()
    return [ids[start:end] for start, end in pairwise(corpus.documents.starts.tolist())]
