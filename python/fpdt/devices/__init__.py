"""Devices a plan can run on, by the name in its header."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.distributed as dist

from fpdt.devices.cpu import CpuRuntime, Order
from fpdt.devices.cuda import CudaRuntime
from fpdt.devices.cuda_copies import CopyingCudaRuntime, cuda_runtime
from fpdt.devices.device_memory import (
    allocated_elsewhere_bytes,
    allocator_peak_bytes,
    device_arena,
    reset_allocator_peak,
)
from fpdt.devices.file_pool import FilePool
from fpdt.devices.host_arena import pinned_arena, view_spans
from fpdt.devices.threads import ThreadsRuntime
from fpdt.errors import ArenaError, FpdtError
from fpdt.plan import Link, Plan, Pool
from fpdt.run.arena import Arena, mapped_arena
from fpdt.run.runtime import Runtime
from fpdt.wire.options import CopyMode

__all__ = [
    "CopyMode",
    "CopyingCudaRuntime",
    "CpuRuntime",
    "CudaRuntime",
    "ThreadsRuntime",
    "create_runtime",
    "foreign_bytes",
    "free_cache",
    "open_files",
    "peak_bytes",
    "plan_runtime",
    "reset_peak",
]

SpansOf = Callable[[str], Any]
DEVICE_MODES: Mapping[str, tuple[CopyMode, ...]] = {
    "cpu": (*get_args(Order), "threads"),
    "cuda": ("events", "native"),
}
"""By device its copy modes, the first of which a run has that asks for none."""
DEFAULT_STREAMS = ("compute", "comm", "h2d", "d2h")


def _no_spans(pool: str) -> Any:
    del pool
    return np.empty((0, 2), np.int64)


def plan_runtime(
    plan: Plan,
    group: dist.ProcessGroup | None = None,
    *,
    copy_mode: CopyMode | None = None,
    seed: int = 0,
    device_index: int = 0,
    files: Mapping[str, FilePool] | None = None,
) -> Runtime:
    """The runtime that a plan asks for; `files` are those of `open_files`, which is called for a plan without any."""
    return create_runtime(
        plan.device,
        plan.header.pools,
        group,
        streams=plan.streams,
        links=plan.header.links,
        copy_mode=copy_mode,
        seed=seed,
        device_index=device_index,
        files=open_files(plan.header.pools, None) if files is None else files,
        spans_of=partial(view_spans, plan),
    )


def create_runtime(
    device: str,
    pools: Sequence[Pool],
    group: dist.ProcessGroup | None = None,
    *,
    streams: tuple[str, ...] = DEFAULT_STREAMS,
    links: Sequence[Link] = (),
    copy_mode: CopyMode | None = None,
    seed: int = 0,
    device_index: int = 0,
    files: Mapping[str, FilePool] | None = None,
    spans_of: SpansOf = _no_spans,
) -> Runtime:
    """The runtime of one rank with its arenas. `group` is the sequence group; `seed` the CPU's.

    `copy_mode`: None is eager on a CPU, events on a GPU. Where there are no native copies on a GPU, copies go by events
    too, and the runtime's remarks say why. `spans_of`: the views of a pool, for a GPU; see host_arena.view_spans.

    Raises FpdtError for a device this worker does not know, or a copy mode of another, ArenaError when the arenas
    cannot be allocated.
    """
    if device not in ("cpu", "cuda"):
        raise FpdtError(f"the plan is for device {device!r}", "this worker runs on cpu or cuda")
    mode = _mode(device, copy_mode)
    if device == "cuda":
        torch.cuda.set_device(device_index)
    arenas = {pool.name: _arena(pool, device, device_index, spans_of) for pool in pools if pool.kind != "file"}
    files = dict(files or {})
    in_file = {pool.name for pool in pools if pool.kind == "file"}
    file_streams = frozenset(streams.index(link.stream) for link in links if in_file & {link.from_, link.to})
    if device == "cuda":
        return cuda_runtime(mode == "native", arenas, files, streams, file_streams, group, device_index)
    if mode == "threads":
        return ThreadsRuntime(arenas, files, streams, file_streams, group, seed)
    return CpuRuntime(arenas, files, streams, group, mode, seed)


def peak_bytes(device: torch.device) -> int | None:
    """What Runtime.device_peak_bytes says, for when there is no runtime yet."""
    return allocator_peak_bytes(device) if device.type == "cuda" else None


def foreign_bytes(device: torch.device) -> int | None:
    """Bytes of the device in use that PyTorch did not allocate; None where it cannot tell."""
    return allocated_elsewhere_bytes(device) if device.type == "cuda" else None


def free_cache(device: torch.device) -> None:
    """What PyTorch keeps of a device for later tensors is free again, for whoever allocates elsewhere."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        reset_allocator_peak(device)


def open_files(pools: Sequence[Pool], folder: Path | None, direct: bool | None = None) -> dict[str, FilePool]:
    """The files of the pools that have bytes, preallocated in `folder`.

    `direct`: past the page cache, or never; None: where the file system can. Raises ArenaError when there is no folder
    for one, FilePoolError when it cannot be made.
    """
    return {pool.name: _file(pool, folder, direct) for pool in pools if pool.kind == "file" and pool.bytes > 0}


def _mode(device: str, asked: CopyMode | None) -> Any:
    """Raises FpdtError for one that the device does not have."""
    modes = DEVICE_MODES[device]
    if asked is not None and asked not in modes:
        known = ", ".join(modes)
        raise FpdtError(f"copy mode {asked!r} is not of {device}", f"give {known}, or leave --copy-mode out")
    return asked or modes[0]


def _arena(pool: Pool, device: str, device_index: int, spans_of: SpansOf) -> Arena:
    if device == "cpu":
        return mapped_arena(pool.name, pool.bytes)
    if pool.kind == "device":
        return device_arena(pool.name, pool.bytes, torch.device("cuda", device_index))
    return pinned_arena(pool.name, pool.bytes, device_index, spans_of(pool.name))


def _file(pool: Pool, folder: Path | None, direct: bool | None) -> FilePool:
    if folder is None:
        raise ArenaError(
            f"the plan keeps {pool.bytes} bytes in the pool {pool.name}, a file, and no folder was given for it",
            "give the folder of a fast local disk with --disk-folder",
        )
    return FilePool(folder, pool.bytes, pool.name, direct)
