"""CUDA: one stream per plan stream, an event for every op that another waits for, a page-locked host arena."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.cuda import Event, Stream

from fpdt.errors import ArenaError
from fpdt.plan import STREAMS, Op
from fpdt.run.arena import Arena, mapped_arena
from fpdt.run.runtime import Body, Runtime


class CudaRuntime(Runtime):
    """The compute stream is the one current when a part begins, so that ZeRO's own work is ordered with the ops.

    Tensors that an op makes are freed to the stream they were made on, and arenas are never freed, so no tensor needs
    record_stream.
    """

    def __init__(
        self, arena_bytes: Mapping[str, int], group: dist.ProcessGroup | None = None, device_index: int = 0
    ) -> None:
        torch.cuda.set_device(device_index)
        device = torch.device("cuda", device_index)
        host = mapped_arena("host", arena_bytes["host"])
        super().__init__(device, {"hbm": _device_arena(arena_bytes["hbm"], device), "host": host}, group)
        _page_lock(host)
        self._side_streams = {name: Stream(device) for name in STREAMS if name != "compute"}  # type: ignore[no-untyped-call]
        self._compute: Stream = torch.cuda.current_stream(device)
        self._waited: frozenset[int] = frozenset()
        self._events: dict[int, Event] = {}
        self._started = self.mark()

    def begin_part(self, ops: Sequence[Op]) -> None:
        self._compute = torch.cuda.current_stream(self.device)
        self._waited = frozenset(wait for op in ops for wait in op.waits)
        self._events.clear()
        self._fork()

    def launch(self, op: Op, body: Body) -> None:
        stream = self._stream_of(op)
        for wait in op.waits:
            stream.wait_event(self._events[wait])
        with torch.cuda.stream(stream):
            self._run_body(op, body)
        self._record(op, stream)

    def run_external(self, op: Op, body: Body) -> None:
        self._join()
        self._run_body(op, body)
        self._record(op, self._compute)
        self._fork()

    def finish_part(self) -> None:
        self._join()

    def abandon_part(self) -> None:
        """Ops already launched finish by themselves; the streams are joined so that nothing overtakes them."""
        self._join()

    def mark(self) -> Event:
        event = Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def seconds_between(self, start: Event, end: Event) -> float:
        return float(start.elapsed_time(end)) / 1000

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def device_peak_bytes(self) -> int | None:
        return int(torch.cuda.max_memory_allocated(self.device))

    def reset_device_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)

    def close(self) -> None:
        self.synchronize()
        _page_unlock(self.arenas["host"])

    @property
    def _origin(self) -> Event:
        return self._started

    def _stream_of(self, op: Op) -> Stream:
        return self._side_streams.get(op.stream, self._compute)

    def _record(self, op: Op, stream: Stream) -> None:
        if op.id in self._waited:
            event = Event()  # type: ignore[no-untyped-call]
            event.record(stream)
            self._events[op.id] = event

    def _fork(self) -> None:
        for stream in self._side_streams.values():
            stream.wait_stream(self._compute)

    def _join(self) -> None:
        for stream in self._side_streams.values():
            self._compute.wait_stream(stream)


def _device_arena(num_bytes: int, device: torch.device) -> Arena:
    try:
        return Arena("hbm", torch.empty(num_bytes, dtype=torch.uint8, device=device))
    except torch.cuda.OutOfMemoryError as error:
        free, total = torch.cuda.mem_get_info(device)
        found = f"{free} of {total} bytes of {device} are free"
        raise ArenaError(f"the hbm arena needs {num_bytes} bytes; {found}", "lower hbmBytes of the cluster") from error


def _page_lock(arena: Arena) -> None:
    """Lock the arena as it is: PyTorch's own pinned allocator would round it up to a power of two."""
    if arena.num_bytes == 0:
        return
    code = int(_cuda_runtime().cudaHostRegister(arena.tensor.data_ptr(), arena.num_bytes, 0))
    if code != 0:
        hint = "raise the limit of locked memory (ulimit -l), or lower hostBytes of the cluster"
        raise ArenaError(f"cudaHostRegister of {arena.num_bytes} bytes failed with code {code}", hint)


def _page_unlock(arena: Arena) -> None:
    if arena.num_bytes:
        _cuda_runtime().cudaHostUnregister(arena.tensor.data_ptr())


def _cuda_runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
