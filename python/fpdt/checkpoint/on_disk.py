"""A state in a file of DeepSpeed's: read and written in blocks, none of which stays in the page cache."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MODE = 0o600
"""Of a file that is made."""


@dataclass(frozen=True)
class OnDisk:
    """`count` elements from `first` on of a file that has nothing else. Answers what shards ask of a 1-D tensor."""

    path: Path
    first: int
    count: int
    dtype: torch.dtype

    def numel(self) -> int:
        return self.count

    def narrow(self, dim: int, start: int, length: int) -> OnDisk:
        assert dim == 0
        return replace(self, first=self.first + start, count=length)

    def read(self, block: memoryview) -> None:
        """Fills a block of as many bytes. Raises OSError that names the file, also where it is too short."""
        with _opened(self.path, os.O_RDONLY) as descriptor:
            _read_whole(descriptor, block, self._place)
            os.posix_fadvise(descriptor, self._place, len(block), os.POSIX_FADV_DONTNEED)

    def write(self, block: memoryview) -> None:
        """On its way to the disk: see `sync`. Raises OSError that names the file."""
        with _opened(self.path, os.O_WRONLY) as descriptor:
            _write_whole(descriptor, block, self._place)
            os.posix_fadvise(descriptor, self._place, len(block), os.POSIX_FADV_DONTNEED)

    @property
    def _place(self) -> int:
        return self.first * self.dtype.itemsize


def write_zeros(path: Path, num_bytes: int) -> None:
    """A new file, whose room is taken. Raises OSError that names it."""
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
        os.posix_fallocate(descriptor, 0, num_bytes)


def sync(path: Path) -> None:
    """Returns when all that was written is on the disk. Raises OSError that names the file."""
    with _opened(path, os.O_WRONLY) as descriptor:
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_of(tensor: Tensor) -> memoryview:
    """Of a 1-D tensor of a CPU: where they lie."""
    array: Any = tensor.detach().view(torch.uint8).numpy()
    return memoryview(array)


def read_bytes(path: Path, block: memoryview, place: int) -> None:
    """Fills the block from byte `place` on. Raises OSError that names the file, also where it is too short."""
    with _opened(path, os.O_RDONLY) as descriptor:
        _read_whole(descriptor, block, place)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    try:
        descriptor = os.open(path, flags, _MODE)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from error


def _read_whole(descriptor: int, block: memoryview, place: int) -> None:
    while len(block) > 0:
        count = os.preadv(descriptor, [block], place)
        if count == 0:
            raise OSError(errno.EIO, f"it ends at byte {place}, {len(block)} too soon")
        block, place = block[count:], place + count


def _write_whole(descriptor: int, block: memoryview, place: int) -> None:
    while len(block) > 0:
        count = os.pwrite(descriptor, block, place)
        block, place = block[count:], place + count
