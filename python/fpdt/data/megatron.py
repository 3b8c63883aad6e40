"""Megatron's indexed datasets: token ids in a `.bin`, its documents in the `.idx` beside it.

The index is (Megatron-LM, megatron/core/datasets/indexed_dataset.py), little-endian: 9 bytes "MMIDIDX" and two zeros,
version (uint64, 1), dtype code (uint8), number of sequences n (uint64), length of the document table d (uint64), then
the sequences' lengths in tokens (int32 [n]), their places in the `.bin` in bytes (int64 [n]), and the document table
(int64 [d]): document i is sequences [table[i], table[i + 1]). Modes of multimodal sequences may follow.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpdt.data.corpus import Corpus, Documents
from fpdt.data.fingerprint import of_files
from fpdt.data.tokens import Int64, TokenFile
from fpdt.errors import DataError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
"""By code; 6 and 7 are floating point, which no ids are."""
REBUILD = "write the pair again with Megatron's preprocess_data.py"


@dataclass(frozen=True)
class Index:
    """`starts` of documents in tokens, and the dtype of the `.bin`."""

    dtype: np.dtype[Any]
    starts: Int64


def open_megatron(path: Path, vocab_size: int) -> Corpus:
    """`path` is that of the `.bin` or the `.idx`. Raises DataError where they are no pair."""
    data, index_path = path.with_suffix(".bin"), path.with_suffix(".idx")
    if not data.is_file():
        raise DataError(f"there is no {data} beside {index_path}", "keep the two files of a Megatron dataset together")
    index = read_index(index_path)
    num_tokens, size = int(index.starts[-1]), data.stat().st_size
    if size != num_tokens * index.dtype.itemsize:
        raise DataError(
            f"{data} has {size} bytes, {index_path.name} speaks of {num_tokens} tokens of {index.dtype.itemsize} bytes",
            f"copy the file again, or {REBUILD}",
        )
    ids = np.memmap(data, dtype=index.dtype, mode="r") if size > 0 else np.empty(0, dtype=index.dtype)
    return Corpus(TokenFile(data, ids, vocab_size), of_files(data, index_path), Documents(index.starts))


def read_index(path: Path) -> Index:
    """Raises DataError for a file that is no index, is cut short, or whose sequences do not follow each other."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(HEADER.size)
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        raise DataError(f"{path} begins with {header[:9]!r}, a Megatron index with {MAGIC!r}", REBUILD)
    _, version, code, num_sequences, num_entries = HEADER.unpack(header)
    if version != VERSION or code not in DTYPES:
        raise DataError(
            f"{path} has version {version} and dtype code {code}; known are version {VERSION} and codes {list(DTYPES)}",
            REBUILD,
        )
    expected = HEADER.size + 12 * num_sequences + 8 * num_entries
    if size < expected or num_entries == 0:
        raise DataError(f"{path} has {size} bytes, its header speaks of {expected}", f"copy it again, or {REBUILD}")
    parts = np.memmap(path, dtype=np.uint8, mode="r", offset=0)[HEADER.size : expected]
    lengths, places, table = np.split(parts, [4 * num_sequences, 12 * num_sequences])
    return _index(path, np.dtype(DTYPES[code]), lengths.view("<i4"), places.view("<i8"), table.view("<i8"))


def _index(path: Path, dtype: np.dtype[Any], lengths: NDArray[np.int32], places: Int64, table: Int64) -> Index:
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    out_of_place = np.flatnonzero(places != starts[:-1] * dtype.itemsize)
    if out_of_place.size:
        raise DataError(f"sequence {out_of_place[0] + 1} of {path} does not follow the one before it", REBUILD)
    if table[0] != 0 or table[-1] != len(lengths) or (np.diff(table) < 0).any():
        raise DataError(f"the documents of {path} are not all of its {len(lengths)} sequences, in order", REBUILD)
    return Index(dtype, starts[table])
