"""Arenas: one allocation per pool and rank, and the views of it that the plan names."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from itertools import dropwhile, takewhile
from pathlib import Path

import torch
from torch import Tensor

from fpdt.errors import ArenaError
from fpdt.plan import DTYPE_BYTES, Access, Buffer, Op, Plan

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


class Arena:
    """The memory of one pool. `tensor` is uint8, on the pool's device."""

    def __init__(self, pool: str, tensor: Tensor, mapped: MappedMemory | None = None) -> None:
        self.pool = pool
        self.num_bytes = tensor.numel()
        self.tensor = tensor
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


class BufferViews:
    """Resolves what an op names to tensors. A view is made once and is the same object ever after."""

    def __init__(self, plan: Plan, arenas: Mapping[str, Arena]) -> None:
        self._plan = plan
        self._arenas = arenas
        self._made: dict[tuple[int, int, int, int], Tensor] = {}

    def resolve(self, op: Op, accesses: tuple[Access, ...], segment: int) -> tuple[Tensor, ...]:
        return tuple(self._rows(item, self._plan.instance(op, item, segment)) for item in accesses)

    def whole(self, name: str, instance: int = 0) -> Tensor:
        """All rows of an instance of the buffer called `name`."""
        buffer = self._plan.buffer(name)
        return self._rows(Access(buffer.id, 0, buffer.shape[0], 0, instance), instance)

    def byte_range(self, buffer: Buffer, instance: int) -> tuple[int, int]:
        """Where an instance lies in its arena."""
        start = buffer.offset + instance * buffer.instance_bytes
        return start, start + buffer.shape[0] * buffer.row_bytes

    def _rows(self, access: Access, instance: int) -> Tensor:
        key = (access.buffer, instance, access.start, access.end)
        view = self._made.get(key)
        if view is None:
            view = self._made[key] = self._make(access, instance)
        return view

    def _make(self, access: Access, instance: int) -> Tensor:
        buffer = self._plan.buffers[access.buffer]
        inside = 0 <= instance < buffer.instances and 0 <= access.start < access.end <= buffer.shape[0]
        if not inside:
            found = f"{self._plan.access_text(access)} means instance {instance} of {buffer.instances}"
            raise ArenaError(f"{found}, rows of {buffer.shape[0]}", "plan again: the op names what does not exist")
        start, _ = self.byte_range(buffer, instance)
        shape = (access.end - access.start, *buffer.shape[1:])
        return self._arenas[buffer.pool].view(
            start + access.start * buffer.row_bytes, buffer.dtype, shape, buffer.strides
        )


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
