"""Token stores: what is made once of text, rows and records, for ranks to map.

A folder with `store.json` (Facts), `tokens.bin`, `starts.bin` (int64 [documents + 1], in tokens), `places.bin` (int64
[documents], a document's line, record or row in the source) and, where the source says so, `targets.bin` (uint8
[tokens], 0 where a token is no target) and `weights.bin` (float32 [tokens]).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpdt.data.corpus import Corpus, Documents
from fpdt.data.fingerprint import Fingerprint
from fpdt.data.tokenizer import check_vocabulary
from fpdt.data.tokens import TokenFile
from fpdt.errors import DataError

VERSION = 1
FACTS = "store.json"


@dataclass(frozen=True)
class Facts:
    """`digest` is that of all that ranks read."""

    version: int
    source: str
    source_bytes: int
    digest: str
    num_tokens: int
    num_documents: int
    dtype: str
    noun: str
    is_text: bool
    """Tokens are bytes, which are ids modulo the vocabulary."""
    vocabulary: int | None
    """Tokens of the tokenizer; None where ids are the source's own."""
    largest_id: int
    largest_place: int
    has_targets: bool
    has_weights: bool

    def save(self, folder: Path) -> None:
        (folder / FACTS).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def open_store(folder: Path, source: Path, vocab_size: int) -> Corpus:
    """Maps a store. Raises DataError for one that is damaged, or was made for a larger vocabulary."""
    facts = read_facts(folder)
    if facts.vocabulary is not None:
        check_vocabulary(facts.vocabulary, vocab_size)
    if facts.largest_id >= vocab_size and not facts.is_text:
        raise DataError(
            f"{facts.noun} {facts.largest_place} of {source} has token {facts.largest_id}, outside the vocabulary of "
            f"{vocab_size}",
            "give token ids made for this model",
        )

    def part(name: str, dtype: str, count: int) -> NDArray[Any]:
        return _map(folder / f"{name}.bin", dtype, count)

    count = facts.num_tokens
    starts, places = part("starts", "<i8", facts.num_documents + 1), part("places", "<i8", facts.num_documents)
    return Corpus(
        TokenFile(source, part("tokens", facts.dtype, count), vocab_size, facts.is_text),
        Fingerprint(source.name, facts.source_bytes, facts.digest),
        Documents(starts, places, facts.noun),
        part("targets", "u1", count) if facts.has_targets else None,
        part("weights", "<f4", count) if facts.has_weights else None,
    )


def read_facts(folder: Path) -> Facts:
    """Raises DataError for a folder that is no store."""
    try:
        return Facts(**json.loads((folder / FACTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{folder} is no token store: {error}", "delete it; it is made again") from error


def _map(path: Path, dtype: str, count: int) -> NDArray[Any]:
    kind = np.dtype(dtype)
    size = path.stat().st_size if path.exists() else 0
    if size != count * kind.itemsize:
        raise DataError(
            f"{path} has {size} bytes, expected {count * kind.itemsize}", f"delete {path.parent}; it is made again"
        )
    return np.memmap(path, dtype=kind, mode="r") if count > 0 else np.empty(0, dtype=kind)
