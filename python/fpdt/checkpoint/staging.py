"""Between tensors and files: memory of a CPU is written and read where it lies, a device's through one pinned block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BLOCK_BYTES = 16 << 20
"""What is written, hashed and copied at once; on a GPU also the pinned bytes that a checkpoint needs, which the ledger
has (`CHECKPOINT_STAGING_BYTES`, src/memory/hostTerms.ts)."""


class Staging:
    """For one thread at a time."""

    def __init__(self, device: torch.device) -> None:
        self._block: Tensor | None = None
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._block = torch.empty(BLOCK_BYTES, dtype=torch.uint8, pin_memory=True)
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def wait_for_device(self) -> None:
        """What is copied from now on is what the current stream has made of it."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())

    def blocks(self, tensor: Tensor) -> Iterator[memoryview]:
        """The bytes of a 1-D tensor; each block is good until the next is asked for."""
        flat = tensor.detach().view(torch.uint8)
        for start in range(0, flat.numel(), BLOCK_BYTES):
            part = flat.narrow(0, start, min(BLOCK_BYTES, flat.numel() - start))
            yield _bytes_of(self._fetch(part) if part.is_cuda else part)

    def fill(self, tensor: Tensor, path: Path, place: int) -> None:
        """Reads the bytes of a 1-D tensor from a file, from byte `place` on. Raises OSError for a file too short."""
        flat = tensor.detach().view(torch.uint8)
        with path.open("rb", buffering=0) as file:
            file.seek(place)
            for start in range(0, flat.numel(), BLOCK_BYTES):
                part = flat.narrow(0, start, min(BLOCK_BYTES, flat.numel() - start))
                target = self._pinned(part.numel()) if part.is_cuda else part
                view = _bytes_of(target)
                while len(view) > 0:
                    count = file.readinto(view)
                    if not count:
                        raise OSError(f"{path} ends before byte {place + flat.numel()}")
                    view = view[count:]
                if part.is_cuda:
                    part.copy_(target)

    def _fetch(self, part: Tensor) -> Tensor:
        block = self._pinned(part.numel())
        with torch.cuda.stream(self._stream):
            block.copy_(part, non_blocking=True)
            torch.cuda.current_stream().synchronize()
        return block

    def _pinned(self, num_bytes: int) -> Tensor:
        if self._block is None:
            raise RuntimeError("a tensor of a device in the staging of a CPU")
        return self._block.narrow(0, 0, num_bytes)


def _bytes_of(tensor: Tensor) -> memoryview:
    array: Any = tensor.numpy()
    return memoryview(array)
