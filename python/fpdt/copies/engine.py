"""The copy engine as Python calls it; see native/cuda/copies_api.h."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_uint8, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fpdt.copies.build import copies_library
from fpdt.errors import FpdtError

if TYPE_CHECKING:
    from fpdt.copies.lowering import LoweredSection

HOST = -1
"""The handle of who has no stream of the device's: the host waits itself, and what it writes has been done."""
_FAILED_BEFORE = -2
_ROWS = POINTER(c_int64)
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "error": (c_char_p, []),
    "open": (c_void_p, [c_char_p, c_int32, c_uint32, _ROWS, c_int32, _ROWS, c_int32]),
    "close": (None, [c_void_p]),
    "load": (c_int32, [c_void_p, _ROWS, _ROWS, c_int64, _ROWS, c_int64, _ROWS, c_int64]),
    "hide": (c_int, [c_void_p, c_int32, POINTER(c_uint8), c_int64]),
    "run": (c_int, [c_void_p, c_int32, _ROWS, c_int64, POINTER(c_uint32), POINTER(c_uint32)]),
    "wait": (c_int, [c_void_p, c_int64, c_int32, c_uint32]),
    "write": (c_int, [c_void_p, c_int64, c_int32, c_uint32]),
    "join": (c_int, [c_void_p]),
    "fail": (c_int, [c_void_p, c_char_p]),
    "reset": (c_int, [c_void_p, _ROWS]),
    "stats": (c_int, [c_void_p, c_int32, POINTER(c_uint64)]),
}
_BLOCKING = frozenset({"close", "wait", "join", "reset"})
"""These let other threads of Python run meanwhile; the others return at once, but for a write to the queue of a GPU."""


class CopyEngineError(FpdtError):
    """The engine refused a call, or something that it did before had failed."""


class QueueStats(NamedTuple):
    """Of one queue since the start; `cpu_nanoseconds` is the time of its thread."""

    ops: int
    pieces: int
    batches: int
    bytes: int
    cpu_nanoseconds: int


class CopyEngine:
    """Queues of copies on native threads. Owns the threads until `close`; arenas must live as long.

    `owned`: streams whose copies the engine launches. `arenas`: address and bytes of each. `options`: of the device,
    see copies_api.h. Raises CopiesUnavailableError where there is none, CopyEngineError where it cannot be made.
    """

    def __init__(
        self,
        device: str,
        num_streams: int,
        owned: Sequence[int],
        arenas: Sequence[tuple[int, int]],
        options: Sequence[int] = (),
        library: Path | None = None,
    ) -> None:
        self._calls = _load(copies_library() if library is None else library, device == "cuda")
        self._bases = (c_uint32 * num_streams)()
        self._arrays: dict[tuple[int, ...], Any] = {}
        self._num_streams = num_streams
        flat = [number for arena in arenas for number in arena]
        mask = sum(1 << stream for stream in owned)
        self._engine: int | None = self._calls["open"](
            device.encode(), num_streams, mask, _int64s(flat), len(arenas), _int64s(options), len(options)
        )
        if not self._engine:
            raise self._error(-1)
        self._run, self._wait, self._write = self._calls["run"], self._calls["wait"], self._calls["write"]

    def load(self, section: LoweredSection) -> int:
        """The number that `run` and `hide` know its copies by."""
        rows = (section.header, section.ops, section.waits, section.pieces)
        header, ops, waits, pieces = (row.ctypes.data_as(_ROWS) for row in rows)
        sizes = [len(row) for row in rows]
        number: int = self._calls["load"](self._engine, header, ops, sizes[1], waits, sizes[2], pieces, sizes[3])
        if number < 0:
            raise self._error(-1)
        return number

    def hide(self, program: int, hidden: Sequence[bool]) -> None:
        """Ops, by their places in the rows, that copy nothing from the next `run` on."""
        self._check(self._calls["hide"](self._engine, program, (c_uint8 * len(hidden))(*hidden), len(hidden)))

    def run(self, program: int, args: tuple[int, ...], masks: tuple[int, ...]) -> list[int]:
        """Queues the copies of a call; the last position of every stream before it."""
        code = self._run(self._engine, program, self._int64s_of(args), len(args), self._uint32s_of(masks), self._bases)
        if code:
            raise self._error(code)
        return self._bases[:]

    def wait(self, stream: int, position: int, handle: int = 0) -> None:
        code = self._wait(self._engine, handle, stream, position & 0xFFFFFFFF)
        if code:
            raise self._error(code)

    def write(self, stream: int, position: int, handle: int = 0) -> None:
        code = self._write(self._engine, handle, stream, position & 0xFFFFFFFF)
        if code:
            raise self._error(code)

    def join(self) -> None:
        """All copies queued so far were given to the device; on the CPU they are done."""
        self._check(self._calls["join"](self._engine))

    def fail(self, reason: str) -> None:
        """Frees every waiter; everything but `reset` raises CopyEngineError from now on. From any thread."""
        self._check(self._calls["fail"](self._engine, reason.encode()))

    def reset(self, handles: Sequence[int] = ()) -> None:
        """Forgets what was queued and what failed. `handles`: of streams that others launch on, where they have one."""
        given = handles or [0] * self._num_streams
        self._check(self._calls["reset"](self._engine, _int64s(given)))

    def stats(self, stream: int) -> QueueStats:
        found = (c_uint64 * len(QueueStats._fields))()
        self._check(self._calls["stats"](self._engine, stream, found))
        return QueueStats(*found)

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine:
            self._calls["close"](engine)

    def _int64s_of(self, numbers: tuple[int, ...]) -> Any:
        """Calls come again and again with the same arguments."""
        found = self._arrays.get(numbers)
        if found is None:
            found = self._arrays[numbers] = _int64s(numbers)
        return found

    def _uint32s_of(self, masks: tuple[int, ...]) -> Any:
        key = (-1, *masks)
        found = self._arrays.get(key)
        if found is None:
            found = self._arrays[key] = (c_uint32 * len(masks))(*masks)
        return found

    def _check(self, code: int) -> None:
        if code:
            raise self._error(code)

    def _error(self, code: int) -> CopyEngineError:
        text = self._calls["error"]().decode(errors="replace")
        hint = "the first error is the one to look at" if code == _FAILED_BEFORE else "plan again with this version"
        return CopyEngineError(f"native copies: {text}", hint)


def _load(library: Path, writes_block: bool) -> dict[str, Any]:
    """Functions by their names without the prefix."""
    blocking, short = ctypes.CDLL(str(library)), ctypes.PyDLL(str(library))
    found = {}
    for name, (result, arguments) in _SIGNATURES.items():
        is_blocking = name in _BLOCKING or (name == "write" and writes_block)
        function = getattr(blocking if is_blocking else short, f"fpdt_copies_{name}")
        function.restype, function.argtypes = result, arguments
        found[name] = function
    return found


def _int64s(numbers: Sequence[int]) -> Any:
    return (c_int64 * max(1, len(numbers)))(*numbers)
