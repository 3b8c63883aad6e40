"""Measures memory in use, from outside: live bytes of PyTorch's storages, touched pages of the arenas, sizes of files.

Nothing here looks at the plan; a measurement that did could not contradict it.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, TypedStorage, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode

SETTLE_POLL_SECONDS = 0.0005
_LIFT_FRESH = torch.ops.aten.lift_fresh.default


class Made(NamedTuple):
    """A storage that was made inside a scope and is alive at its end."""

    num_bytes: int
    made_by: str


@dataclass(slots=True)
class Scope:
    """What happened between two points: peak bytes above the bytes live at the start, and what is still alive."""

    base_bytes: int
    peak_bytes: int = 0
    alive: list[Made] = field(default_factory=list)


@dataclass(slots=True)
class _Entry:
    num_bytes: int
    made_by: str
    reference: weakref.ref[UntypedStorage]


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that PyTorch makes while the mode is on; frees are counted whenever they happen.

    A storage is counted once, however many views it has, and follows `resize_`. Storages made before are not counted
    (see `adopt`). Like a GPU allocator it counts a reference cycle as live until the garbage collector runs. It does
    not see what a kernel allocates inside.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self._entries: dict[int, _Entry] = {}
        self._scope_keys: list[dict[int, None]] = []
        self._scopes: list[Scope] = []
        self._depth = 0
        self._resize: Callable[..., Any] = UntypedStorage.resize_

    @property
    def active(self) -> bool:
        return self._depth > 0

    def reset_peak(self) -> None:
        self.peak_bytes = self.live_bytes

    def adopt(self, tensors: Iterable[Tensor]) -> None:
        """Count storages that were made while the mode was off, such as parameters."""
        for tensor in tensors:
            self._note(tensor.untyped_storage(), "before")

    @contextmanager
    def scope(self, settle_seconds: float = 0.0) -> Iterator[Scope]:
        """Observe one stretch of the program; the result is complete when the block ends. Scopes may nest.

        What is alive at the end may be given `settle_seconds` to go: a process group's own thread drops its
        references to an exchange's tensors a little after the exchange is done.
        """
        scope = Scope(self.live_bytes)
        keys: dict[int, None] = {}
        self._scopes.append(scope)
        self._scope_keys.append(keys)
        try:
            yield scope
        finally:
            self._scopes.pop()
            self._scope_keys.pop()
            scope.alive = self._alive(keys)
            deadline = time.monotonic() + settle_seconds
            while scope.alive and time.monotonic() < deadline:
                time.sleep(SETTLE_POLL_SECONDS)
                scope.alive = self._alive(keys)

    def _alive(self, keys: Iterable[int]) -> list[Made]:
        entries = (self._entries.get(key) for key in keys)
        return [Made(entry.num_bytes, entry.made_by) for entry in entries if entry is not None and entry.num_bytes]

    def __enter__(self) -> LiveBytes:
        self._depth += 1
        if self._depth == 1:
            self._patch_resize()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._depth -= 1
        if self._depth == 0:
            UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # torch.tensor([...]) fills its storage before the dispatcher sees it, as the input of lift_fresh.
        given = set() if func is _LIFT_FRESH else {storage._cdata for storage in _storages(*args, *kwargs.values())}
        result = func(*args, **kwargs)
        for storage in _storages(result):
            if storage._cdata in self._entries or storage._cdata not in given:
                self._note(storage, str(func))
        return result

    def _note(self, storage: UntypedStorage, made_by: str) -> None:
        key, num_bytes = storage._cdata, storage.nbytes()
        entry = self._entries.get(key)
        if entry is None:
            # The storage's Python object lives exactly as long as the storage: torch preserves it.
            reference = weakref.ref(storage, lambda _: self._forget(key))
            entry = self._entries[key] = _Entry(0, made_by, reference)
            for keys in self._scope_keys:
                keys[key] = None
        self._grow(num_bytes - entry.num_bytes)
        entry.num_bytes = num_bytes

    def _forget(self, key: int) -> None:
        self._grow(-self._entries.pop(key).num_bytes)
        for keys in self._scope_keys:
            keys.pop(key, None)

    def _grow(self, num_bytes: int) -> None:
        self.live_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        for scope in self._scopes:
            scope.peak_bytes = max(scope.peak_bytes, self.live_bytes - scope.base_bytes)

    def _patch_resize(self) -> None:
        """UntypedStorage.resize_ is no op of the dispatcher, but it frees and allocates."""
        original = self._resize = UntypedStorage.resize_

        def resize(storage: UntypedStorage, size: int) -> Any:
            result = original(storage, size)
            if storage._cdata in self._entries:
                self._note(storage, "resize_")
            return result

        UntypedStorage.resize_ = resize  # type: ignore[method-assign, assignment]


class TouchedMemory(Protocol):
    def touched_bytes(self) -> int: ...


class ReservedFile(Protocol):
    @property
    def num_bytes(self) -> int: ...


class Measurable(Protocol):
    """What is asked of a Runtime; arenas and files by the name of their pool."""

    @property
    def arenas(self) -> Mapping[str, TouchedMemory]: ...

    @property
    def files(self) -> Mapping[str, ReservedFile]: ...

    def device_peak_bytes(self) -> int | None: ...


def measure_load(kinds: Mapping[str, str], device_peak: int | None, live: LiveBytes) -> dict[str, int]:
    """High-water bytes of start-up by pool, where there are no arenas yet: those of the device's pool alone.

    `device_peak` is that of the device's allocator; where it keeps none, `live` tells.
    """
    peak = live.peak_bytes if device_peak is None else device_peak
    return {name: peak for name, kind in kinds.items() if kind == "device"}


def measure_pools(kinds: Mapping[str, str], runtime: Measurable, live: LiveBytes | None = None) -> dict[str, int]:
    """High-water bytes by pool; `kinds` are those of the plan's pools by name.

    An arena counts what of it was touched, a file its whole size, which is reserved when it is made. To the device pool
    comes what PyTorch allocates beside its arena: a device whose allocator keeps its own peak, arena included, is
    asked; elsewhere `live` tells, and without it that part is missing.
    """
    pools = {name: _pool_bytes(name, runtime) for name in kinds}
    device = next((name for name, kind in kinds.items() if kind == "device"), None)
    if device is not None:
        peak = runtime.device_peak_bytes()
        pools[device] = pools[device] + (live.peak_bytes if live else 0) if peak is None else peak
    return pools


def _pool_bytes(name: str, runtime: Measurable) -> int:
    if name in runtime.files:
        return runtime.files[name].num_bytes
    return runtime.arenas[name].touched_bytes() if name in runtime.arenas else 0


def _storages(*values: Any) -> Iterator[UntypedStorage]:
    """Storages in arguments or results of an op; their nesting is shallow, so this is much cheaper than a pytree."""
    for value in values:
        if isinstance(value, Tensor):
            # One on the meta device has a size and no memory; the storage of a fake tensor says that it is on none.
            if value.layout == torch.strided and value.device.type != "meta":
                yield value.untyped_storage()
        elif isinstance(value, list | tuple):
            yield from _storages(*value)
        elif isinstance(value, UntypedStorage):
            yield value
        elif isinstance(value, TypedStorage):
            yield value._untyped_storage
