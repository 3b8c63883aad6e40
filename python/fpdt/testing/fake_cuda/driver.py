"""The CUDA driver as the copy engine calls it, on a made-up device: its back end is the real one, compiled as it is.

Threads of the engine call too. What they ask for lies in a mailbox, in their order, until the thread of the tests
looks: the device has one thread, and what the engine says is launched is in the mailbox by then. A wait for a position
that nobody has launched yet is an error: a GPU that did its work in the order of launches would never come to it.
"""

from __future__ import annotations

import ctypes
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import c_int, c_int32, c_size_t, c_uint32, c_uint64
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

from fpdt.copies.driver import DRIVER_FUNCTIONS
from fpdt.devices import cuda_copies
from fpdt.testing.fake_cuda.device import Clock, Command, Device, Stream
from fpdt.testing.fake_cuda.oracle import OrderError
from fpdt.testing.fake_cuda.pinned import PinnedRanges

FIRST_ADDRESS = 1 << 44
INVALID_VALUE = 1
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "cuDeviceGet": (c_size_t, c_int),
    "cuDevicePrimaryCtxRetain": (c_size_t, c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_size_t,),
    "cuMemAlloc_v2": (c_size_t, c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemsetD32_v2": (c_uint64, c_uint32, c_size_t),
    "cuStreamWaitValue32_v2": (c_size_t, c_uint64, c_uint32, c_uint32),
    "cuStreamWriteValue32_v2": (c_size_t, c_uint64, c_uint32, c_uint32),
    "cuMemcpyBatchAsync_v2": (c_size_t,) * 8,
    "cuStreamSynchronize": (c_size_t,),
    "cuGetErrorString": (c_int, c_size_t),
}


@dataclass(frozen=True)
class Piece:
    """Bytes of a copy, by addresses."""

    dst: int
    src: int
    num_bytes: int


@dataclass(frozen=True)
class _Write:
    position: int
    command: Command
    clock: Clock


class MadeUpDriver:
    """`ranges` are page-locked: no copy may lie across two. `fails`: names of functions that return an error."""

    def __init__(self, device: Device, ranges: PinnedRanges, fails: Sequence[str] = ()) -> None:
        self.calls: Counter[str] = Counter()
        self.contexts = 0
        """How often the device's context is held."""
        self.memory: dict[int, int] = {}
        """Bytes by address."""
        self.heard: Callable[[Stream, list[Piece], Clock], None] | None = None
        """Told of every batch when it is queued, with what surely is done before it."""
        self._device, self._ranges, self._fails = device, ranges, frozenset(fails)
        self._random = random.Random(device.streams[0].number)
        self._writes: dict[int, list[_Write]] = {}
        self._mail: deque[Callable[[], None]] = deque()
        self._thread, self._is_settling = threading.get_ident(), False
        self._error: Exception | None = None
        self._text = ctypes.create_string_buffer(b"invalid argument, made up")
        self._callbacks = [self._callback(name) for name in DRIVER_FUNCTIONS]
        device.settle = self.settle

    def functions(self) -> tuple[int, ...]:
        """Addresses, as driver_functions has them."""
        return tuple(ctypes.cast(call, ctypes.c_void_p).value or 0 for call in self._callbacks)

    def settle(self) -> None:
        """Queues what the engine's threads have asked for. Raises the error of one that a GPU would not survive."""
        self._deliver()
        if not self._is_settling and self._error is not None:
            error, self._error = self._error, None
            raise error

    def _callback(self, name: str) -> Any:
        work = getattr(self, f"_{name.removesuffix('_v2')}")

        def call(*arguments: int) -> int:
            self.calls[name] += 1
            if name in self._fails:
                return INVALID_VALUE
            work(*arguments)
            return 0

        return ctypes.CFUNCTYPE(c_int32, *_ARGUMENTS[name])(call)

    def _post(self, work: Callable[[], None]) -> None:
        """An error in a callback is nobody's: the next look at the device raises it."""
        self._mail.append(work)
        if threading.get_ident() == self._thread:
            self._deliver()

    def _deliver(self) -> None:
        if self._is_settling:
            return
        self._is_settling = True
        while self._mail:
            try:
                self._mail.popleft()()
            except Exception as error:
                self._error = self._error or error
        self._is_settling = False

    def _cuDeviceGet(self, out: int, ordinal: int) -> None:  # noqa: N802 - CUDA's name
        c_int.from_address(out).value = ordinal

    def _cuDevicePrimaryCtxRetain(self, out: int, device: int) -> None:  # noqa: N802 - CUDA's name
        c_size_t.from_address(out).value = FIRST_ADDRESS + device
        self.contexts += 1

    def _cuDevicePrimaryCtxRelease(self, device: int) -> None:  # noqa: N802 - CUDA's name
        self.contexts -= 1

    def _cuCtxSetCurrent(self, context: int) -> None:  # noqa: N802 - CUDA's name
        """There is one."""

    def _cuMemAlloc(self, out: int, num_bytes: int) -> None:  # noqa: N802 - CUDA's name
        address = FIRST_ADDRESS + sum(self.memory.values())
        self.memory[address] = num_bytes
        c_uint64.from_address(out).value = address

    def _cuMemFree(self, address: int) -> None:  # noqa: N802 - CUDA's name
        self._post(self._device.synchronize)
        del self.memory[address]

    def _cuMemsetD32(self, address: int, value: int, count: int) -> None:  # noqa: N802 - CUDA's name
        assert value == 0 and 4 * count == self.memory[address]

    def _cuStreamWaitValue32(self, stream: int, address: int, value: int, flags: int) -> None:  # noqa: N802
        assert flags == 0
        self._post(lambda: self._wait(self._device.streams[stream], address, value))

    def _cuStreamWriteValue32(self, stream: int, address: int, value: int, flags: int) -> None:  # noqa: N802
        assert flags == 0
        self._post(lambda: self._write(self._device.streams[stream], address, value))

    def _cuMemcpyBatchAsync(  # noqa: N802 - CUDA's name
        self, dst: int, src: int, sizes: int, count: int, attributes: int, of: int, num: int, stream: int
    ) -> None:
        columns = [(c_uint64 * count).from_address(column)[:] for column in (dst, src, sizes)]
        pieces = [Piece(*row) for row in zip(*columns, strict=True)]
        assert c_int.from_address(attributes).value == 1 and num == 1 and c_size_t.from_address(of).value == 0
        self._post(lambda: self._copy(self._device.streams[stream], pieces))

    def _cuStreamSynchronize(self, stream: int) -> None:  # noqa: N802 - CUDA's name
        self._post(self._device.streams[stream].synchronize)

    def _cuGetErrorString(self, result: int, out: int) -> None:  # noqa: N802 - CUDA's name
        c_size_t.from_address(out).value = ctypes.addressof(self._text)

    def _wait(self, stream: Stream, address: int, position: int) -> None:
        if _is_reached(0, position):
            return
        found = next((one for one in self._writes.get(address, ()) if _is_reached(one.position, position)), None)
        if found is None:
            raise OrderError(f"stream {stream.number} waits for position {position}, which nobody has launched")
        if found.position != position:
            raise OrderError(f"stream {stream.number} waits for position {position}, which nobody ever tells")
        stream.clock |= found.clock
        stream.queue_command([found.command])

    def _write(self, stream: Stream, address: int, position: int) -> None:
        clock = stream.clock | self._device.host
        self._writes.setdefault(address, []).append(_Write(position, stream.queue_command([]), clock))

    def _copy(self, stream: Stream, pieces: list[Piece]) -> None:
        for piece in pieces:
            for address in (piece.dst, piece.src):
                if not self._ranges.is_copyable(address, piece.num_bytes):
                    raise OrderError(f"a copy of {piece.num_bytes} bytes lies across two page-locked ranges")
        clock = stream.clock | self._device.host
        stream.queue_work(lambda: self._move(pieces))
        if self.heard is not None:
            self.heard(stream, pieces, clock)

    def _move(self, pieces: list[Piece]) -> None:
        """In any order: the driver promises none."""
        for piece in self._random.sample(pieces, len(pieces)):
            ctypes.memmove(piece.dst, piece.src, piece.num_bytes)


@contextmanager
def driven(
    device: Device, ranges: PinnedRanges, module: ModuleType = cuda_copies, fails: Sequence[str] = ()
) -> Iterator[MadeUpDriver]:
    """What `module`, the one of the runtime with native copies, finds of the driver."""
    driver = MadeUpDriver(device, ranges, fails)
    with mock.patch.object(module, "driver_functions", driver.functions):
        yield driver


def _is_reached(counter: int, position: int) -> bool:
    return (counter - position) & 0xFFFFFFFF < 1 << 31
