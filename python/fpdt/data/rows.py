"""The rows of one rank: of every chunk of C tokens of a sequence, its share [i*C + r*c, i*C + (r+1)*c)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fpdt.data.batch import PADDING_TOKEN, Batch
from fpdt.data.corpus import Corpus
from fpdt.data.sequences import Layout
from fpdt.data.tokens import IGNORED_LABEL, Int64
from fpdt.plan import Plan

PADDING_ROWS = 128
"""Of a document of padding, where documents are packed: attention costs the sum of squares."""


@dataclass(frozen=True)
class Share:
    """The rows of a sequence that a rank holds, and whose turn it is among the replicas."""

    num_chunks: int
    local_chunk_tokens: int
    sequence_ranks: int
    sequence_rank: int
    data_parallel_size: int
    data_rank: int
    accumulation_steps: int

    @classmethod
    def of_rank(cls, plan: Plan, rank: int) -> Share:
        """Its place in its sequence group, and that group's among the replicas."""
        groups = plan.layout.sequence_groups
        data_rank = next(number for number, ranks in enumerate(groups) if rank in ranks)
        return cls(
            num_chunks=int(plan.strategy["numChunks"]),
            local_chunk_tokens=int(plan.strategy["localChunkTokens"]),
            sequence_ranks=plan.sequence_parallel_size,
            sequence_rank=groups[data_rank].index(rank),
            data_parallel_size=plan.data_parallel_size,
            data_rank=data_rank,
            accumulation_steps=int(plan.run["gradientAccumulationSteps"]),
        )

    @property
    def num_rows(self) -> int:
        """Of the whole sequence, padding included."""
        return self.num_chunks * self.local_chunk_tokens * self.sequence_ranks

    @property
    def sequences_per_step(self) -> int:
        return self.accumulation_steps * self.data_parallel_size

    def number(self, step: int, micro_step: int) -> int:
        """Of a sequence, counted from the first of step 0."""
        return step * self.sequences_per_step + micro_step * self.data_parallel_size + self.data_rank

    def rows(self) -> Int64:
        """Numbers of this rank's rows in the sequence."""
        chunks = np.arange(self.num_chunks)[:, None] * self.sequence_ranks + self.sequence_rank
        return (chunks * self.local_chunk_tokens + np.arange(self.local_chunk_tokens)).reshape(-1)


class RankReader:
    """Makes a rank's batch of a sequence. `packs`: documents keep apart, and so does the padding."""

    def __init__(self, corpus: Corpus, share: Share, *, packs: bool) -> None:
        self._corpus, self._share, self._packs = corpus, share, packs
        self._rows = share.rows()

    def batch(self, layout: Layout) -> Batch:
        """No token of another rank is touched, but for the labels of its last rows. Raises DataError."""
        corpus, rows = self._corpus, self._rows
        local = np.flatnonzero(rows < layout.num_rows)
        numbers = layout.tokens(rows[local])
        has_label = self._has_label(layout, rows[local], numbers)
        ids = _filled(rows, PADDING_TOKEN, local, corpus.tokens.take(numbers))
        targets, labelled = numbers[has_label] + 1, local[has_label]
        labels = _filled(rows, IGNORED_LABEL, labelled, corpus.tokens.take(targets))
        weights = None
        if corpus.weights is not None:
            weights = torch.ones(len(rows))
            weights[torch.from_numpy(labelled)] = torch.from_numpy(corpus.weights[targets])
        starts = self._starts(layout)
        positions = rows - np.array(starts)[np.searchsorted(starts, rows, side="right") - 1]
        token_ids, at, targets_of = (torch.from_numpy(array) for array in (ids, positions, labels))
        return Batch(token_ids, at, targets_of, weights, starts)

    def _has_label(self, layout: Layout, rows: Int64, numbers: Int64) -> NDArray[np.bool_]:
        """Whether the token after that of a row is a target of it."""
        found = np.ones(len(rows), dtype=np.bool_)
        if layout.closed:
            found = rows + 1 < layout.rows[layout.documents(rows) + 1]
        if self._corpus.targets is not None:
            found[found] = self._corpus.targets[numbers[found] + 1] != 0
        return found

    def _starts(self, layout: Layout) -> tuple[int, ...]:
        if not self._packs:
            return (0,)
        padding = range(layout.num_rows, self._share.num_rows, PADDING_ROWS)
        return (*layout.rows[:-1].tolist(), *padding)


def _filled(rows: Int64, default: int, local: Int64, values: Int64) -> Int64:
    found = np.full(len(rows), default, dtype=np.int64)
    found[local] = values
    return found
