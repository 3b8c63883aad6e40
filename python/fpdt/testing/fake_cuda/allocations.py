"""Steps of a plan as the caching allocator of a GPU sees them, on a device as slow as can be.

The worker's own session, DeepSpeed and handlers run on CPU tensors, at once, in the order in which the host launches
their work. Of a GPU there are streams, events and launch queues: every kernel is an entry that nothing runs before the
host waits for it, or its queue is full. Each storage that PyTorch makes is a block of the allocator's twin, on the
stream that is current.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator
from torch import UntypedStorage

from fpdt.measure.memory import LiveBytes
from fpdt.run.executor import Executor
from fpdt.testing.fake_cuda.accelerator import READS
from fpdt.testing.fake_cuda.allocator import Block, CachingAllocator
from fpdt.testing.fake_cuda.device import Device, Event, Stream

QUEUE_DEPTH = 1000
"""Entries of a stream's launch queue, about; then the host waits."""
STEP, UPDATE = "microSteps", "optimizerStep"


class Allocations(LiveBytes):  # type: ignore[no-untyped-call]
    """Storages as blocks of an allocator. `peaks`: bytes in use or waited for, by what the step was at."""

    def __init__(self, device: Device, allocator: CachingAllocator) -> None:
        super().__init__()
        self.peaks = {STEP: 0, UPDATE: 0}
        self.at = STEP
        self._device, self._allocator = device, allocator
        self._blocks: dict[int, Block] = {}

    def record_stream(self, tensor: torch.Tensor, stream: Stream) -> None:
        block = self._blocks.get(tensor.untyped_storage()._cdata)
        if block is not None:
            self._allocator.record_stream(block, stream)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        num_made = len(self._blocks)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        name = func.overloadpacket.__name__
        if (len(self._blocks) > num_made or func._schema.is_mutable) and "empty" not in name:
            self._device.current.queue_command([])
        if name in READS:
            self._device.current.synchronize_once()
        return result

    def _note(self, storage: UntypedStorage, made_by: str) -> None:
        key, size, entry = storage._cdata, storage.nbytes(), self._entries.get(storage._cdata)
        if entry is not None and entry.num_bytes == size:
            return
        super()._note(storage, made_by)
        before = self._blocks.pop(key, None)
        if before is not None:
            self._allocator.give_back(before)
        if size > 0:
            self._blocks[key] = self._allocator.allocate(size, self._device.current)
            self.peaks[self.at] = max(self.peaks[self.at], self._allocator.active_bytes)

    def _forget(self, key: int) -> None:
        super()._forget(key)
        block = self._blocks.pop(key, None)
        if block is not None:
            self._allocator.give_back(block)


@contextmanager
def allocated_on(device: Device, allocator: CachingAllocator) -> Iterator[Allocations]:
    """Sessions that are made and run inside take what PyTorch allocates from the allocator; see also `sessions_on`."""
    seen = Allocations(device, allocator)
    with ExitStack() as patches:
        for name, value in _answers(device).items():
            patches.enter_context(mock.patch.object(CPU_Accelerator, name, value))
        recorded = lambda tensor, stream: seen.record_stream(tensor, stream)  # noqa: E731
        patches.enter_context(mock.patch.object(torch.Tensor, "record_stream", recorded))
        patches.enter_context(mock.patch.object(Executor, "finish", _marking(seen, Executor.finish)))
        patches.enter_context(seen)
        yield seen


def _answers(device: Device) -> dict[str, Any]:
    """What the accelerator says and has in place of the CPU's."""
    default = device.current

    @contextmanager
    def current(_: Any, stream: Stream) -> Iterator[None]:
        outer, device.current = device.current, stream
        try:
            yield
        finally:
            device.current = outer

    return {
        "is_synchronized_device": lambda self: False,
        "resolves_data_dependency": lambda self: False,
        "handles_memory_backpressure": lambda self: False,
        "use_host_timers": lambda self: True,
        "Stream": lambda self, *_, **__: Stream(device),
        "Event": lambda self, *_, **__: Event(device),
        "stream": current,
        "current_stream": lambda self, device_index=None: device.current,
        "default_stream": lambda self, device_index=None: default,
        "synchronize": lambda self, device_index=None: device.synchronize(),
    }


def _marking(seen: Allocations, finish: Callable[..., None]) -> Callable[..., None]:
    def marked(*args: Any) -> None:
        seen.at = UPDATE
        try:
            finish(*args)
        finally:
            seen.at = STEP

    return marked
