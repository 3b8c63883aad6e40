"""The documents of a micro-step, as attention ops see them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from fpdt.attention.base import Mask
from fpdt.attention.pieces import Piece, Rows, pieces_of

ONE_DOCUMENT = (0,)


class Documents:
    """Where documents begin in the sequence of a sequence group, the same on all of its ranks; `begin` sets it.

    Layers run the same ops: pieces are cut once for a micro-step. `pairs` counts, by op kind, the pairs of a query and
    a key that kernels were asked for since the start.
    """

    def __init__(self) -> None:
        self.starts: tuple[int, ...] = ONE_DOCUMENT
        self.pairs: Counter[str] = Counter()
        self._pieces: dict[tuple[Rows, Rows, Mask], tuple[Piece, ...]] = {}

    def begin(self, starts: tuple[int, ...]) -> None:
        if starts != self.starts:
            self.starts = starts
            self._pieces = {}

    def pieces(self, queries: Rows, keys: Rows, mask: Mask) -> tuple[Piece, ...]:
        key = (queries, keys, mask)
        found = self._pieces.get(key)
        if found is None:
            found = self._pieces[key] = pieces_of(self.starts, queries, keys, mask)
        return found

    def hides(self, first_queries: NDArray[np.int64], key_ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of ops whose keys come before their queries: whether no document has some of both.

        `first_queries` are positions, `key_ends` one past the last key of each. Twin: isHidden in documents.ts.
        """
        starts = np.array(self.starts, np.int64)
        begins = starts[np.searchsorted(starts, first_queries, side="right") - 1]
        hidden: NDArray[np.bool_] = (key_ends <= first_queries) & (begins >= key_ends)
        return hidden
