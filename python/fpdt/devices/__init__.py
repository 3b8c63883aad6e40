"""Devices a plan can run on, by the name in its cluster spec."""

from __future__ import annotations

from collections.abc import Mapping

import torch.distributed as dist

from fpdt.devices.cpu import CopyMode, CpuRuntime
from fpdt.devices.cuda import CudaRuntime
from fpdt.errors import FpdtError
from fpdt.run.runtime import Runtime

__all__ = ["CopyMode", "CpuRuntime", "CudaRuntime", "create_runtime"]


def create_runtime(
    device: str,
    arena_bytes: Mapping[str, int],
    group: dist.ProcessGroup | None = None,
    *,
    copy_mode: CopyMode = "eager",
    seed: int = 0,
    device_index: int = 0,
) -> Runtime:
    """The runtime of one rank with its arenas. `group` is the sequence group; `copy_mode` and `seed` are the CPU's.

    Raises FpdtError for a device this worker does not know, ArenaError when the arenas cannot be allocated.
    """
    if device == "cpu":
        return CpuRuntime(arena_bytes, group, copy_mode, seed)
    if device == "cuda":
        return CudaRuntime(arena_bytes, group, device_index)
    raise FpdtError(f"the plan is for device {device!r}", "this worker runs on cpu or cuda")
