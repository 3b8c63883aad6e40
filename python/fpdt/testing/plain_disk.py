"""DeepSpeed's async_io in Python, for tests where nobody has compiled it: what its swappers call, without libaio.

Like the op it tells nobody of a transfer that fails, and like many a disk it refuses memory that does not begin at a
sector. `pytest -m full` runs on the op itself.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fpdt.checkpoint.on_disk import bytes_of
from fpdt.run.states_disk import SECTOR_BYTES

_MODE = 0o600


def use_plain_disk() -> None:
    """In this process, until it ends."""
    from deepspeed.ops.op_builder import AsyncIOBuilder

    AsyncIOBuilder.load = lambda *_, **__: SimpleNamespace(aio_handle=PlainHandle)
    AsyncIOBuilder.is_compatible = lambda *_, **__: True


class PlainHandle:
    """Transfers happen when they are waited for, so that what is used before is found."""

    _locked: ClassVar[dict[int, Tensor]] = {}
    """By address, of all handles of the process."""

    def __init__(self, **_: Any) -> None:
        self._pending: list[Callable[[], None]] = []

    def async_pread(self, buffer: Tensor, path: str, place: int) -> int:
        if os.path.getsize(path) < place + buffer.nbytes:  # noqa: PTH202
            return -1
        self._pending.append(partial(_transfer, os.O_RDONLY, buffer, path, place))
        return 0

    def async_pwrite(self, buffer: Tensor, path: str, place: int) -> int:
        self._pending.append(partial(_transfer, os.O_WRONLY | os.O_CREAT, buffer, path, place))
        return 0

    def wait(self) -> int:
        pending, self._pending = self._pending, []
        for transfer in pending:
            transfer()
        return len(pending)

    def new_cpu_locked_tensor(self, numel: int, example: Tensor) -> Tensor:
        made = torch.frombuffer(mmap.mmap(-1, numel * example.element_size()), dtype=example.dtype)
        self._locked[made.data_ptr()] = made
        return made

    def free_cpu_locked_tensor(self, tensor: Tensor) -> bool:
        return self._locked.pop(tensor.data_ptr(), None) is not None

    def is_pinned(self, tensor: Tensor) -> bool:
        first = tensor.data_ptr()
        return any(
            start <= first and first + tensor.nbytes <= start + whole.nbytes for start, whole in self._locked.items()
        )


def _transfer(flags: int, buffer: Tensor, path: str, place: int) -> None:
    if buffer.data_ptr() % SECTOR_BYTES:
        return
    block = bytes_of(buffer)
    descriptor = os.open(path, flags, _MODE)
    try:
        done = os.preadv(descriptor, [block], place) if flags == os.O_RDONLY else os.pwrite(descriptor, block, place)
    finally:
        os.close(descriptor)
    assert done == buffer.nbytes
