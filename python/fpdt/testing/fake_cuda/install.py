"""Puts a made-up device under the module of the CUDA runtime, and handlers that only queue their work."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from types import ModuleType
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

import fpdt.devices.host_arena as host_arena
from fpdt.devices import cuda
from fpdt.devices.file_pool import FilePool
from fpdt.plan import Plan
from fpdt.run.arena import mapped_arena
from fpdt.run.context import Handler, Handlers, OpContext
from fpdt.run.runtime import COMM, Runtime
from fpdt.testing.fake_cuda.device import Device, Event, Stream
from fpdt.testing.fake_cuda.pinned import PinnedRanges


@contextmanager
def made_up(device: Device, module: ModuleType = cuda, ranges: PinnedRanges | None = None) -> Iterator[None]:
    """What `module`, the CUDA runtime's, finds of CUDA is `device`, and `ranges` of page-locked memory."""
    found = ranges or PinnedRanges()
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(module, "Stream", lambda _, priority=0: Stream(device, priority)))
        patches.enter_context(mock.patch.object(module, "Event", partial(Event, device)))
        patches.enter_context(mock.patch.object(host_arena, "_last_error", lambda: found.cudaGetLastError))
        for name, value in _torch_cuda(device, found).items():
            patches.enter_context(mock.patch.object(torch.cuda, name, value))
        yield


def make_runtime(
    plan: Plan,
    device: Device,
    files: Mapping[str, FilePool],
    group: dist.ProcessGroup | None = None,
    module: ModuleType = cuda,
    *,
    is_attended: bool = True,
) -> Runtime:
    """The CUDA runtime of `module` with its arenas in the memory of the CPU; inside `made_up`.

    `is_attended`: what the caller does at once, on CPU tensors, waits for what was queued before it.
    """
    pools = [pool for pool in plan.header.pools if pool.kind != "file"]
    arenas = {pool.name: mapped_arena(pool.name, pool.bytes) for pool in pools}
    in_file = {pool.name for pool in plan.header.pools if pool.kind == "file"}
    links = [link for link in plan.header.links if in_file & {link.from_, link.to}]
    device.file_streams = frozenset(link.stream for link in links)
    places = frozenset(plan.streams.index(link.stream) for link in links)
    made: Any = _attended(module, device) if is_attended else module.CudaRuntime
    runtime: Runtime = made(arenas, files, plan.streams, places, group)
    runtime.device = torch.device("cpu")
    return runtime


def queueing(handlers: Handlers, device: Device) -> dict[str, Handler]:
    """The handlers as a GPU has them: a call puts the work on the current stream and comes back.

    Ops of the device's file streams run at once: they hand a transfer to a file.
    """
    return {kind: _queueing(handler, device) for kind, handler in handlers.items()}


def _queueing(handler: Handler, device: Device) -> Handler:
    def queue(ctx: OpContext, *views: Any) -> None:
        if ctx.op.stream in device.file_streams:
            handler(ctx, *views)
            return
        # The section's frame is that of the next call by the time the work runs.
        own = OpContext(ctx.op, copy.copy(ctx.frame))
        device.launch(lambda: handler(own, *views))

    return queue


def _attended(module: ModuleType, device: Device) -> Any:
    """The runtime, where work of the caller's that runs at once waits for what was queued before it on its stream.

    That is what DeepSpeed does on CPU tensors: on a GPU it would queue its work behind ours. Collectives of its own
    come after exchanges, on every rank.
    """
    base: Any = module.CudaRuntime

    class Attended(base):  # type: ignore[misc]
        def end_turn(self) -> None:
            super().end_turn()
            self._attend()

        def before_gather(self) -> None:
            super().before_gather()
            self._attend()

        def before_release(self) -> None:
            super().before_release()
            self._attend()

        def join(self) -> None:
            super().join()
            self._attend()

        def _attend(self) -> None:
            device.current.complete()
            self._streams[COMM].complete()

    return Attended


def _torch_cuda(device: Device, ranges: PinnedRanges) -> dict[str, Any]:
    def set_stream(stream: Stream) -> None:
        device.calls["set_stream"] += 1
        device.current = stream or device.current

    return {
        "current_stream": lambda _=None: device.current,
        "set_stream": set_stream,
        "synchronize": lambda _=None: device.synchronize(),
        "set_device": lambda _: None,
        "max_memory_allocated": lambda _=None: 0,
        "reset_peak_memory_stats": lambda _=None: None,
        "cudart": lambda: ranges,
    }
