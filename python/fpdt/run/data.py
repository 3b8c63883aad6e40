"""Token files: every rank reads only its own tokens of the sequences of a step.

A file is raw bytes (each byte a token, id = byte % vocabSize), or int32 token ids as `.bin` (little-endian, no header)
or `.npy`. It is cut into consecutive slices of seqLen + 1 tokens; what is left over at the end is not used. Data-rank r
of dp trains, in micro-step m of optimizer step t, on slice (t * accumulationSteps + m) * dp + r, counted modulo the
number of slices. A slice gives seqLen inputs and, one token on, their labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpdt.errors import FpdtError
from fpdt.plan import Plan

IGNORED_LABEL = -100
PADDING_TOKEN = 0


class DataError(FpdtError):
    """A token file that a run cannot train on."""


@dataclass(frozen=True)
class Batch:
    """One rank's tokens of one sequence, int64 [rows]. Labels are shifted; padding has label -100."""

    token_ids: Tensor
    positions: Tensor
    labels: Tensor

    @property
    def tables(self) -> dict[str, Tensor]:
        """By the names of the plan's tables."""
        return {"tokenIds": self.token_ids, "positions": self.positions, "labels": self.labels}

    @property
    def num_valid(self) -> int:
        """Target tokens that count in the loss."""
        return int((self.labels != IGNORED_LABEL).sum())


@dataclass(frozen=True)
class TokenFile:
    """A memory-mapped file of token ids."""

    path: Path
    ids: NDArray[Any]
    vocab_size: int
    is_text: bool

    def read(self, start: int, end: int) -> NDArray[np.int64]:
        """Tokens [start, end). Raises DataError for an id that the model has no row for."""
        ids = self.ids[start:end].astype(np.int64)
        if self.is_text:
            return ids % self.vocab_size
        outside = np.flatnonzero((ids < 0) | (ids >= self.vocab_size))
        if outside.size:
            at = int(outside[0])
            raise DataError(
                f"token {start + at} of {self.path} has id {ids[at]}, outside the vocabulary of {self.vocab_size}",
                "give token ids made for this model",
            )
        return ids


def open_tokens(path: str | Path, vocab_size: int) -> TokenFile:
    """Maps the file; reads nothing yet. Raises DataError for a file that is missing or not of its kind."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no token file {path}", "give the path of a text, .npy or .bin file")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", "give a file with at least seqLen + 1 tokens")
    if path.suffix == ".npy":
        return TokenFile(path, _map_npy(path), vocab_size, is_text=False)
    if path.suffix == ".bin":
        if path.stat().st_size % 4:
            raise DataError(f"{path} has {path.stat().st_size} bytes", "a .bin file holds int32 ids, 4 bytes each")
        return TokenFile(path, np.memmap(path, dtype="<i4", mode="r"), vocab_size, is_text=False)
    return TokenFile(path, np.memmap(path, dtype=np.uint8, mode="r"), vocab_size, is_text=True)


def _map_npy(path: Path) -> NDArray[Any]:
    try:
        ids: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{path} is not an .npy array: {error}", "save it with numpy.save") from error
    if ids.ndim != 1 or ids.dtype != np.int32:
        raise DataError(f"{path} holds {ids.dtype} of shape {list(ids.shape)}", "save a flat int32 array of token ids")
    return ids


@dataclass(frozen=True)
class Sequences:
    """Which slice of the file each replica trains on."""

    tokens: TokenFile
    seq_len: int
    data_parallel_size: int
    accumulation_steps: int

    def __post_init__(self) -> None:
        if self.num_slices == 0:
            raise DataError(
                f"{self.tokens.path} has {len(self.tokens.ids)} tokens, a sequence of seqLen={self.seq_len} takes "
                f"{self.seq_len + 1}",
                f"give a longer file, or plan for seqLen={max(1, len(self.tokens.ids) - 1)} or less",
            )

    @property
    def num_slices(self) -> int:
        return len(self.tokens.ids) // (self.seq_len + 1)

    def first_token(self, step: int, micro_step: int, data_rank: int) -> int:
        """Where the slice of a replica starts in the file."""
        number = (step * self.accumulation_steps + micro_step) * self.data_parallel_size + data_rank
        return number % self.num_slices * (self.seq_len + 1)

    def whole(self, step: int, micro_step: int, data_rank: int) -> Tensor:
        """All seqLen + 1 tokens of a slice, int64; what a reference on one process trains on."""
        start = self.first_token(step, micro_step, data_rank)
        return torch.from_numpy(self.tokens.read(start, start + self.seq_len + 1))


@dataclass(frozen=True)
class ShardedBatches:
    """The rows of one rank: of every chunk of C tokens, its share [i*C + r*c, i*C + (r+1)*c)."""

    sequences: Sequences
    num_chunks: int
    local_chunk_tokens: int
    sequence_ranks: int
    sequence_rank: int
    data_rank: int

    def read(self, step: int, micro_step: int) -> Batch:
        """This rank's tokens of a micro-step; no other token of the file is touched."""
        rows = self.num_chunks * self.local_chunk_tokens
        ids = torch.full((rows,), PADDING_TOKEN, dtype=torch.int64)
        labels = torch.full((rows,), IGNORED_LABEL, dtype=torch.int64)
        positions = torch.empty(rows, dtype=torch.int64)
        start = self.sequences.first_token(step, micro_step, self.data_rank)
        for row, position in self._shares():
            count = self.local_chunk_tokens
            positions[row : row + count] = torch.arange(position, position + count)
            valid = min(count, self.sequences.seq_len - position)
            if valid > 0:
                tokens = torch.from_numpy(self.sequences.tokens.read(start + position, start + position + valid + 1))
                ids[row : row + valid] = tokens[:-1]
                labels[row : row + valid] = tokens[1:]
        return Batch(ids, positions, labels)

    def _shares(self) -> Iterator[tuple[int, int]]:
        """(first local row, first global position) of this rank's share of each chunk."""
        count = self.local_chunk_tokens
        for chunk in range(self.num_chunks):
            yield chunk * count, (chunk * self.sequence_ranks + self.sequence_rank) * count


def plan_sequences(plan: Plan, path: str | Path) -> Sequences:
    """The sequences of a plan's run in a token file."""
    tokens = open_tokens(path, int(plan.model["vocabSize"]))
    run = plan.run
    return Sequences(tokens, int(run["seqLen"]), plan.data_parallel_size, int(run["gradientAccumulationSteps"]))


def sharded_batches(plan: Plan, path: str | Path, rank: int) -> ShardedBatches:
    """The batches of one rank of the plan: its place in its sequence group, and that group's among the replicas."""
    groups = plan.layout.sequence_groups
    data_rank = next(number for number, ranks in enumerate(groups) if rank in ranks)
    return ShardedBatches(
        plan_sequences(plan, path),
        num_chunks=int(plan.strategy["numChunks"]),
        local_chunk_tokens=int(plan.strategy["localChunkTokens"]),
        sequence_ranks=plan.sequence_parallel_size,
        sequence_rank=groups[data_rank].index(rank),
        data_rank=data_rank,
    )
