"""Between states and files: memory of a CPU is written and read where it lies, what is elsewhere through one block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from fpdt.checkpoint.on_disk import OnDisk, bytes_of, read_bytes

BLOCK_BYTES = 16 << 20
"""What is written, hashed and copied at once; for states on a GPU or a disk also the bytes that a checkpoint needs,
which the ledger has (`CHECKPOINT_STAGING_BYTES`, src/memory/hostTerms.ts)."""

State = Tensor | OnDisk
"""1-D."""


class Staging:
    """For one thread at a time."""

    def __init__(self, device: torch.device) -> None:
        self._block: Tensor | None = None
        """Page-locked for a GPU, from the start; on a CPU made for the first state on a disk."""
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._block = torch.empty(BLOCK_BYTES, dtype=torch.uint8, pin_memory=True)
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def wait_for_device(self) -> None:
        """What is copied from now on is what the current stream has made of it."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())

    def blocks(self, state: State) -> Iterator[memoryview]:
        """The bytes of a state; each block is good until the next is asked for. Raises OSError for one on a disk."""
        for part in _parts(state):
            if isinstance(part, OnDisk):
                block = bytes_of(self._own(part))
                part.read(block)
                yield block
            else:
                yield bytes_of(self._fetch(part) if part.is_cuda else part)

    def fill(self, state: State, path: Path, place: int) -> None:
        """Reads the bytes of a state from a file, from byte `place` on. Raises OSError that names the file."""
        for part in _parts(state):
            target = part if isinstance(part, Tensor) and not part.is_cuda else self._own(part)
            block = bytes_of(target)
            read_bytes(path, block, place)
            place += len(block)
            if isinstance(part, OnDisk):
                part.write(block)
            elif part.is_cuda:
                part.copy_(target)

    def _fetch(self, part: Tensor) -> Tensor:
        block = self._own(part)
        with torch.cuda.stream(self._stream):
            block.copy_(part, non_blocking=True)
            torch.cuda.current_stream().synchronize()
        return block

    def _own(self, part: State) -> Tensor:
        """Of the block, what a part takes."""
        if self._block is None:
            self._block = torch.empty(BLOCK_BYTES, dtype=torch.uint8)
        return self._block.narrow(0, 0, part.numel() * part.dtype.itemsize).view(part.dtype)


def _parts(state: State) -> Iterator[State]:
    """One after the other, none of more than a block."""
    flat = state if isinstance(state, OnDisk) else state.detach()
    each = BLOCK_BYTES // flat.dtype.itemsize
    for start in range(0, flat.numel(), each):
        yield flat.narrow(0, start, min(each, flat.numel() - start))
