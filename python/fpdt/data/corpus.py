"""The tokens of a source in order, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fpdt.data.fingerprint import Fingerprint
from fpdt.data.tokens import Int64, TokenFile


@dataclass(frozen=True)
class Documents:
    """Where documents begin: document i is tokens [starts[i], starts[i + 1])."""

    starts: Int64
    places: Int64 | None = None
    """Where each is in the source, from 1; None: they are counted from 1."""
    noun: str = "document"
    """Of what places count: line, record, row."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def lengths(self) -> Int64:
        """In tokens."""
        return np.diff(self.starts)

    def name(self, number: int) -> str:
        """Of a document, for errors."""
        place = number + 1 if self.places is None else int(self.places[number])
        return f"{self.noun} {place}"


@dataclass(frozen=True)
class Corpus:
    """`documents` is None where a source is one stream of tokens."""

    tokens: TokenFile
    fingerprint: Fingerprint
    documents: Documents | None = None
    targets: NDArray[np.uint8] | None = None
    """[tokens], 0 where a token is no target; None: all are."""
    weights: NDArray[np.float32] | None = None
    """[tokens], loss weight of each as a target; None: 1."""

    @property
    def path(self) -> Path:
        return self.tokens.path
