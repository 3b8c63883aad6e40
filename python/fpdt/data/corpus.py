"""The tokens of a source in order, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fpdt.data.fingerprint import Fingerprint
from fpdt.data.tokens import Int64, TokenFile

NAMED = 4
"""Of many documents that an error is about."""


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

    def of_tokens(self, numbers: Int64) -> Int64:
        """Of each token the document that it is in."""
        return np.searchsorted(self.starts, numbers, side="right") - 1


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

    def name(self, numbers: Int64) -> str:
        """Of tokens, for errors: `line 3, line 9 and 4 more of a.jsonl`; without documents `token 96 of a.bin`."""
        if self.documents is None:
            names = [f"token {number}" for number in numbers]
        else:
            found = dict.fromkeys(self.documents.of_tokens(numbers).tolist())
            names = [self.documents.name(number) for number in found]
        if len(names) > NAMED:
            names[NAMED:] = [f"{len(names) - NAMED} more"]
        *firsts, last = names
        return f"{', '.join(firsts)} and {last} of {self.path.name}" if firsts else f"{last} of {self.path.name}"
