"""Batches of documents drawn from a seed, and the same documents one by one for a reference.

The tokens of a sequence are a slice of a token file, as in `fpdt run`; where documents begin, which labels count and
what they weigh is drawn for each sequence anew: documents of one token, of nearly the whole sequence, and between.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fpdt.data.batch import PADDING_TOKEN, Batch
from fpdt.data.options import DataOptions
from fpdt.data.rows import Share
from fpdt.data.tokens import IGNORED_LABEL
from fpdt.data.whole import WholeSequences, plan_sequences
from fpdt.plan import Plan

PADDING_DOCUMENT_TOKENS = 3
IGNORED_SHARE = 0.1


@dataclass(frozen=True)
class Document:
    """int64 [tokens], labels shifted, and fp32 weights of their losses."""

    token_ids: Tensor
    labels: Tensor
    weights: Tensor


@dataclass(frozen=True)
class PackedSequences:
    """`lengths`: of the documents of every sequence, which fill it; None draws them. Without `weighted` all weigh 1."""

    sequences: WholeSequences
    seed: int
    lengths: tuple[int, ...] | None = None
    weighted: bool = True

    def documents(self, step: int, micro_step: int, data_rank: int) -> list[Document]:
        """Without padding."""
        tokens = self.sequences.whole(step, micro_step, data_rank)
        drawn = random.Random(f"{self.seed}/{step}/{micro_step}/{data_rank}")
        lengths = self.lengths or draw_lengths(self.sequences.seq_len, drawn)
        return list(self._cut(tokens[:-1], lengths, drawn))

    def _cut(self, tokens: Tensor, lengths: tuple[int, ...], drawn: random.Random) -> Iterator[Document]:
        start = 0
        for length in lengths:
            ids = tokens[start : start + length]
            labels = torch.cat([ids[1:], torch.tensor([IGNORED_LABEL])])
            for row in range(length):
                if drawn.random() < IGNORED_SHARE:
                    labels[row] = IGNORED_LABEL
            weights = [drawn.choice((0.0, 0.25, 1.0, 3.0)) if self.weighted else 1.0 for _ in range(length)]
            yield Document(ids, labels, torch.tensor(weights))
            start += length


@dataclass(frozen=True)
class PackedBatches:
    """The rows of one rank."""

    packed: PackedSequences
    share: Share

    def read(self, step: int, micro_step: int) -> Batch:
        num_rows = self.share.num_rows
        documents = self.packed.documents(step, micro_step, self.share.data_rank)
        documents += padding(num_rows - sum(len(one.token_ids) for one in documents))
        starts = torch.tensor([0, *(len(one.token_ids) for one in documents[:-1])]).cumsum(0)
        own = torch.from_numpy(self.share.rows())
        return Batch(
            torch.cat([one.token_ids for one in documents])[own],
            torch.cat([torch.arange(len(one.token_ids)) for one in documents])[own],
            torch.cat([one.labels for one in documents])[own],
            torch.cat([one.weights for one in documents])[own] if self.packed.weighted else None,
            tuple(starts.tolist()),
        )

    def name(self, step: int, micro_step: int, data_rank: int, position: int | None = None) -> str:
        return f"what was drawn for step {step}, micro-step {micro_step} and replica {data_rank}"

    def position(self, next_step: int) -> dict[str, Any]:
        """A step's number says all."""
        return {}

    def seek(self, position: Mapping[str, Any], next_step: int) -> None:
        """Steps are drawn by their number."""

    def close(self) -> None:
        """Nothing is open."""


def packed_batches(
    seed: int, lengths: tuple[int, ...] | None, plan: Plan, options: DataOptions, rank: int
) -> PackedBatches:
    """From the third on, what PlanSession gives."""
    sequences = plan_sequences(plan, options.path)
    return PackedBatches(PackedSequences(sequences, seed, lengths), Share.of_rank(plan, rank))


def draw_lengths(seq_len: int, drawn: random.Random) -> tuple[int, ...]:
    """At least one; now and then a document is as long as all that is left."""
    lengths: list[int] = []
    while (left := seq_len - sum(lengths)) > 0:
        most = drawn.choice((1, 5, max(1, seq_len // 4), left))
        lengths.append(min(left, drawn.randint(1, most)))
    return tuple(lengths)


def document_lengths(batch: Batch, plan: Plan) -> list[int]:
    """Of all documents of the sequence, padding included."""
    ends = (*batch.document_starts[1:], int(plan.run["paddedSeqLen"]))
    return [end - start for start, end in zip(batch.document_starts, ends, strict=True)]


def padding(num_tokens: int) -> list[Document]:
    """Short documents without a label, which cost next to nothing."""
    found = []
    for start in range(0, num_tokens, PADDING_DOCUMENT_TOKENS):
        rows = min(PADDING_DOCUMENT_TOKENS, num_tokens - start)
        ids, labels = torch.full((rows,), PADDING_TOKEN), torch.full((rows,), IGNORED_LABEL)
        found.append(Document(ids, labels, torch.ones(rows)))
    return found
