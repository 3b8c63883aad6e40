"""Host arenas of a GPU: huge pages on the GPU's side of the machine, page-locked in pieces that no view crosses."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fpdt.errors import ArenaError
from fpdt.plan import Plan
from fpdt.run.arena import Arena, Piece

MAX_PIECE_BYTES = 64 << 30
"""Of one registration: from 512 GiB on drivers fail, whose list of pages then needs more than 2 GiB."""
HUGE_PAGE_BYTES = 2 << 20
NUM_TOUCHERS = 8
SYSFS = Path("/sys")


def pinned_arena(name: str, num_bytes: int, device_index: int, spans: np.ndarray[Any, Any]) -> Arena:
    """Anonymous memory in huge pages, all of it there. `spans`: see view_spans.

    Raises ArenaError where it cannot be mapped, or cut where no view lies across.
    """
    pieces = cut(num_bytes, spans)
    memory = _map(name, num_bytes)
    _touch(memory, _near_cpus(device_index))
    return Arena(name, torch.from_numpy(memory), pieces=pieces)


def view_spans(plan: Plan, pool: str) -> np.ndarray[Any, Any]:
    """First and last byte + 1 of everything that an op may read or write at a time in a pool's arena; [n, 2]."""
    columns = plan.columns
    rows = np.stack([columns.access_buffer, columns.access_start, columns.access_end], axis=1).astype(np.int64)
    found = [np.empty((0, 2), np.int64)]
    for number, start, end in np.unique(rows, axis=0).tolist():
        buffer = plan.buffers[number]
        if buffer.pool != pool:
            continue
        first = buffer.offset + np.arange(buffer.instances, dtype=np.int64) * buffer.instance_bytes
        found.append(np.stack([first + start * buffer.pitch_bytes, first + end * buffer.pitch_bytes], axis=1))
    return np.concatenate(found)


def cut(
    num_bytes: int, spans: np.ndarray[Any, Any], *, most: int = MAX_PIECE_BYTES, page: int = mmap.PAGESIZE
) -> tuple[Piece, ...]:
    """Pieces of whole pages, `most` bytes at most, as few as there can be: a copy must not touch two of them.

    Raises ArenaError where views leave no place for a cut.
    """
    first, last = _places(num_bytes, spans, page)
    pieces, start = list[Piece](), 0
    while num_bytes - start > most:
        limit = (start + most) // page * page
        reachable = np.minimum(last[first <= limit], limit)
        end = int(reachable.max(initial=0))
        if end <= start:
            raise ArenaError(
                f"{num_bytes} bytes of host memory cannot be page-locked in pieces of {most} bytes: "
                f"views leave no place to cut in [{start}:{start + most})",
                "plan with more chunks: every view is then smaller",
            )
        pieces.append((start, end))
        start = end
    return (*pieces, (start, num_bytes)) if num_bytes > start else tuple(pieces)


class PageLocks:
    """Host arenas page-locked as they are, all of them or none: PyTorch's own allocator would round them up.

    Raises ArenaError where the driver refuses one; nothing is locked then, and no error is left for the next launch.
    """

    def __init__(self, arenas: Iterable[Arena]) -> None:
        self._locked: list[int] = []
        for arena in arenas:
            if arena.tensor.device.type == "cpu":
                for start, end in arena.pieces:
                    self._lock(arena.tensor.data_ptr() + start, end - start)

    def release(self) -> None:
        """The last one first. Nothing on the device may use the memory any more."""
        while self._locked:
            _cudart().cudaHostUnregister(self._locked.pop())

    def _lock(self, address: int, num_bytes: int) -> None:
        code = int(_cudart().cudaHostRegister(address, num_bytes, 0))
        if code == 0:
            self._locked.append(address)
            return
        self.release()
        clear_pending_error()
        raise ArenaError(
            f"cudaHostRegister of {num_bytes} bytes failed with code {code}",
            "lower hostBytes of the cluster: the arenas of all ranks must fit in the memory that is free, and that of "
            "the control group",
        )


def clear_pending_error() -> None:
    """A call that failed leaves an error that the next launch would report as its own."""
    _last_error()()


def _last_error() -> Callable[[], int]:
    """Of the CUDA runtime that PyTorch has loaded, or AMD's; PyTorch itself does not hand it on."""
    if torch.version.hip is not None:
        return ctypes.CDLL("libamdhip64.so").hipGetLastError
    return ctypes.CDLL(f"libcudart.so.{str(torch.version.cuda).partition('.')[0]}").cudaGetLastError


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _places(num_bytes: int, spans: np.ndarray[Any, Any], page: int) -> tuple[Any, Any]:
    """First and last page boundary of each gap that no span lies across, ascending."""
    ordered = spans[np.argsort(spans[:, 0], kind="stable")]
    ends = np.maximum.accumulate(np.concatenate([[0], ordered[:, 1]]))
    starts = np.concatenate([ordered[:, 0], [num_bytes]])
    first, last = -(-ends // page) * page, starts // page * page
    is_open = first <= last
    return first[is_open], last[is_open]


def _map(name: str, num_bytes: int) -> np.ndarray[Any, Any]:
    """At a multiple of huge pages. A child would get copies of the pages that the GPU writes to: it gets none."""
    try:
        mapping = mmap.mmap(-1, num_bytes + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise ArenaError(f"cannot map {num_bytes} bytes for {name}: {error.strerror}") from error
    mapping.madvise(mmap.MADV_DONTFORK)
    try:
        mapping.madvise(mmap.MADV_HUGEPAGE)
    except OSError as error:
        # A kernel without them has small pages: slower to lock, and as good.
        if error.errno != errno.EINVAL:
            raise
    memory: np.ndarray[Any, Any] = np.frombuffer(mapping, dtype=np.uint8)
    start = -memory.ctypes.data % HUGE_PAGE_BYTES
    return memory[start : start + num_bytes]


def _touch(memory: np.ndarray[Any, Any], cpus: frozenset[int]) -> None:
    """Pages come to be where they are touched, a huge page at a time; threads do it side by side."""

    def bind() -> None:
        if cpus:
            os.sched_setaffinity(0, cpus)

    def touch(start: int) -> None:
        memory[start : start + step : mmap.PAGESIZE] = 0

    step = max(HUGE_PAGE_BYTES, -(-memory.size // NUM_TOUCHERS // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES)
    with ThreadPoolExecutor(NUM_TOUCHERS, initializer=bind) as touchers:
        list(touchers.map(touch, range(0, memory.size, step)))


def _near_cpus(device_index: int) -> frozenset[int]:
    """Those of the GPU's NUMA node that this process may use; none where there is no such node, or none of them."""
    properties: Any = torch.cuda.get_device_properties(device_index)
    place = f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
    try:
        node = int((SYSFS / "bus/pci/devices" / place / "numa_node").read_text())
        listed = (SYSFS / f"devices/system/node/node{node}/cpulist").read_text()
    except (OSError, ValueError):
        # A virtual machine without nodes, or a GPU that says -1.
        return frozenset()
    return frozenset(_numbers(listed) & os.sched_getaffinity(0))


def _numbers(text: str) -> set[int]:
    """Of a list of the kernel's, as `0-3,8`."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers
