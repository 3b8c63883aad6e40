"""Arenas: one allocation per pool and rank, and the views of it that the plan names."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from itertools import dropwhile, takewhile
from pathlib import Path

import torch
from torch import Tensor

from fpdt.errors import ArenaError
from fpdt.plan import DTYPE_BYTES, Buffer, Plan

TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int64": torch.int64,
}
POISON_HALF_WORD = -8
"""As int16 this is 0xFFF8: repeated, it is NaN in every float type and about -2e15 in int64."""


class MappedMemory:
    """Zeroed memory with a mapping of its own, so that the kernel can say how much of it was ever touched."""

    def __init__(self, name: str, num_bytes: int) -> None:
        whole = torch.frombuffer(_map_memory(name, num_bytes), dtype=torch.uint8)
        self._address = whole.data_ptr()
        self.tensor = whole[:num_bytes]

    def touched_bytes(self) -> int:
        """High water of touched pages: pages of a mapping are never given back before it ends."""
        return _resident_bytes(self._address)


Piece = tuple[int, int]
"""First and last byte + 1, from the start of an arena."""


class Arena:
    """The memory of one pool. `tensor` is uint8, on the pool's device. No view lies in two of its `pieces`."""

    def __init__(
        self, pool: str, tensor: Tensor, mapped: MappedMemory | None = None, pieces: Sequence[Piece] | None = None
    ) -> None:
        self.pool = pool
        self.num_bytes = tensor.numel()
        self.tensor = tensor
        whole = [(0, self.num_bytes)] if self.num_bytes else []
        self.pieces: Sequence[Piece] = whole if pieces is None else pieces
        self._storage = tensor.untyped_storage()
        self._mapped = mapped

    def touched_bytes(self) -> int:
        """Bytes of the arena in use so far, in pages; all of it where the device cannot tell."""
        return self.num_bytes if self._mapped is None else self._mapped.touched_bytes()

    def view(self, offset: int, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
        """A tensor at byte `offset` with a version counter of its own. Raises ArenaError outside the arena."""
        size = DTYPE_BYTES[dtype]
        last = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        end = offset + (last + 1) * size
        if offset < 0 or offset % size or end > self.num_bytes:
            place = f"bytes [{offset}:{end}) of {dtype} are not in the {self.pool} arena of {self.num_bytes} bytes"
            raise ArenaError(place, "plan again: the layout does not fit the arenas")
        empty = torch.empty(0, dtype=TORCH_DTYPES[dtype], device=self.tensor.device)
        return empty.set_(self._storage, offset // size, shape, strides)

    def poison(self, start: int = 0, end: int | None = None) -> None:
        """Fill bytes [start, end) with a value that no result survives: NaN, or a large negative integer."""
        self.tensor[start : self.num_bytes if end is None else end].view(torch.int16).fill_(POISON_HALF_WORD)


class Views:
    """Rows of buffers as tensors, at the plan's addresses. A view is made once and is the same object ever after."""

    def __init__(self, plan: Plan, arenas: Mapping[str, Arena]) -> None:
        self._plan = plan
        self._arenas = arenas
        self._made: dict[tuple[int, int, int, int], Tensor] = {}

    def rows(self, buffer_id: int, instance: int, start: int, end: int) -> Tensor:
        """Rows [start, end) of an instance; the plan's decoder has checked that they exist."""
        key = (buffer_id, instance, start, end)
        view = self._made.get(key)
        if view is None:
            view = self._made[key] = self._make(*key)
        return view

    def whole(self, name: str, instance: int = 0) -> Tensor:
        """All rows of an instance of the buffer called `name`."""
        buffer = self._plan.buffer(name)
        return self.rows(buffer.id, instance, 0, buffer.rows)

    def _make(self, buffer_id: int, instance: int, start: int, end: int) -> Tensor:
        buffer = self._plan.buffers[buffer_id]
        if buffer.block_rows and end - start != buffer.block_rows:
            raise ArenaError(f"rows [{start}:{end}) of {buffer.name} are no block of {buffer.block_rows}")
        # Blocks of rows, whose own rows are not outermost, lie one after the other.
        row = buffer.pitch_bytes
        offset = buffer.offset + instance * buffer.instance_bytes + start * row
        return self._arenas[buffer.pool].view(offset, buffer.dtype, (end - start, *buffer.shape[1:]), buffer.strides)


def byte_range(buffer: Buffer, instance: int) -> tuple[int, int]:
    """Where an instance lies in its arena, padding of its end left out."""
    start = buffer.offset + instance * buffer.instance_bytes
    return start, start + buffer.span_bytes


def mapped_arena(pool: str, num_bytes: int) -> Arena:
    """An arena in host memory."""
    mapped = MappedMemory(f"fpdt-{pool}", num_bytes)
    return Arena(pool, mapped.tensor, mapped)


def _map_memory(name: str, num_bytes: int) -> mmap.mmap:
    # A memfd never merges with a neighbouring mapping, as anonymous memory may. Huge pages would hide what was touched.
    descriptor = os.memfd_create(name)
    try:
        size = max(num_bytes, mmap.PAGESIZE)
        os.ftruncate(descriptor, size)
        mapping = mmap.mmap(descriptor, size)
    except OSError as error:
        raise ArenaError(f"cannot map {num_bytes} bytes for {name}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    mapping.madvise(mmap.MADV_NOHUGEPAGE)
    return mapping


def _resident_bytes(address: int) -> int:
    """Bytes in memory or swap of the mapping that starts at `address`, from /proc/self/smaps."""
    with Path("/proc/self/smaps").open(encoding="utf-8", errors="replace") as smaps:
        fields = dropwhile(lambda line: not line.startswith(f"{address:x}-"), smaps)
        if next(fields, None) is None:
            raise ArenaError(f"no mapping starts at {address:x} in /proc/self/smaps")
        sizes = takewhile(lambda line: not line.startswith("VmFlags"), fields)
        return 1024 * sum(int(line.split()[1]) for line in sizes if line.startswith(("Rss:", "Swap:")))
