"""Which tokens of a corpus make up a sequence: slices of a stream, or documents packed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fpdt.data.corpus import Corpus
from fpdt.data.order import shuffled
from fpdt.data.packing import Packing
from fpdt.data.pieces import Pieces
from fpdt.data.tokens import Int64
from fpdt.errors import DataError


@dataclass(frozen=True)
class Layout:
    """Where the tokens of one sequence stand: documents one after the other from row 0, then padding.

    Document i is the tokens from `first[i]` on, in rows [rows[i], rows[i + 1]). Where documents are `closed` the last
    token of each has no label; the slice of a stream has one, the token after it.
    """

    first: Int64
    rows: Int64
    closed: bool

    @property
    def num_rows(self) -> int:
        """Those that are not padding."""
        return int(self.rows[-1])

    def documents(self, rows: Int64) -> Int64:
        """In which document each row is, counted in this sequence; none of them padding."""
        return np.searchsorted(self.rows, rows, side="right") - 1

    def tokens(self, rows: Int64) -> Int64:
        """Which token of the corpus each row holds."""
        document = self.documents(rows)
        numbers: Int64 = self.first[document] + rows - self.rows[document]
        return numbers


class Sequences(Protocol):
    """Sequence number n of a corpus, for any n: after the last sequence of an epoch comes the first of the next."""

    @property
    def num_in_epoch(self) -> int:
        """Of the first epoch; others have as many, or about as many where documents are shuffled."""

    def layout(self, number: int) -> Layout: ...


class Slices:
    """Consecutive slices of seqLen + 1 tokens; what is left over at the end is not used."""

    def __init__(self, corpus: Corpus, seq_len: int, seed: int | None = None) -> None:
        """`seed` of the order of slices, None: as they are. Raises DataError where there is not one slice."""
        num_tokens = len(corpus.tokens)
        if num_tokens < seq_len + 1:
            raise DataError(
                f"{corpus.path} has {num_tokens} tokens, a sequence of seqLen={seq_len} takes {seq_len + 1}",
                f"give a longer file, or plan for seqLen={max(1, num_tokens - 1)} or less",
            )
        self.num_in_epoch = num_tokens // (seq_len + 1)
        self._seq_len, self._seed = seq_len, seed
        self._order: tuple[int, Int64] | None = None

    def layout(self, number: int) -> Layout:
        epoch, place = divmod(number, self.num_in_epoch)
        start = self._place(epoch, place) * (self._seq_len + 1)
        return Layout(np.array([start]), np.array([0, self._seq_len]), closed=False)

    def _place(self, epoch: int, place: int) -> int:
        if self._seed is None:
            return place
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, shuffled(self.num_in_epoch, self._seed, epoch)
        return int(self._order[1][place])


class PackedDocuments:
    """Documents side by side in sequences of seqLen rows."""

    def __init__(self, pieces: Pieces, seq_len: int, seed: int | None) -> None:
        self._pieces = pieces
        self._packing = Packing(pieces.lengths, seq_len, seed)

    @property
    def num_in_epoch(self) -> int:
        return self._packing.num_in_epoch

    def layout(self, number: int) -> Layout:
        chosen = self._packing.documents(number)
        rows = np.concatenate([[0], np.cumsum(self._pieces.lengths[chosen])])
        return Layout(self._pieces.first[chosen], rows, closed=True)
