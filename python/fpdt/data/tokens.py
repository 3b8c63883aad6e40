"""Token ids by their number in a source, read where they are needed and held against the model's vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpdt.errors import DataError

Int64 = NDArray[np.int64]
IGNORED_LABEL = -100
"""Of a token without a target."""


@dataclass(frozen=True)
class TokenFile:
    """A memory-mapped file of token ids; of bytes, which are ids modulo the vocabulary, where `is_text`."""

    path: Path
    """What errors name: the source, not a file made of it."""
    ids: NDArray[Any]
    vocab_size: int
    is_text: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, numbers: Int64) -> Int64:
        """The ids of tokens by number; no other is touched. Raises DataError for one that the model has no row for."""
        ids = self.ids[numbers].astype(np.int64)
        if self.is_text:
            return ids % self.vocab_size
        outside = np.flatnonzero((ids < 0) | (ids >= self.vocab_size))
        if outside.size:
            at = int(outside[0])
            raise DataError(
                f"token {numbers[at]} of {self.path} has id {ids[at]}, outside the vocabulary of {self.vocab_size}",
                "give token ids made for this model",
            )
        return ids
