"""What DeepSpeed needs where it keeps weights or an optimizer's states on a disk; told before anything is built."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpdt.errors import FpdtError
from fpdt.models.build import DTYPES
from fpdt.plan import Plan

SECTIONS = ("offload_optimizer", "offload_param")
FOLDER_HINT = "name a folder that is there on every host and may be written to"
_DEFAULTS = {"buffer_count": 5, "buffer_size": 1e8, "max_in_cpu": 1e9}
"""Of offload_param."""
_MLOCK_ONFAULT = 1
"""Of mlock2(2): pages are locked once they are there."""
_NOT_ALLOWED = (errno.ENOMEM, errno.EPERM, errno.EAGAIN)


class RankDiskError(FpdtError):
    """Weights or states of an optimizer that cannot be kept in nvme_path."""


def sections_on_disk(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Of zero_optimization. Below ZeRO-3 DeepSpeed has no disk, whatever the device says."""
    zero = config.get("zero_optimization", {})
    if int(zero.get("stage", 0)) < 3:
        return ()
    return tuple(name for name in SECTIONS if (zero.get(name) or {}).get("device") == "nvme")


def check_disk_needs(plan: Plan, parents: Mapping[str, Path]) -> None:
    """`parents`: nvme_path by section. Raises RankDiskError for the first thing that is not there."""
    _check_async_io()
    _check_lockable(_locked_bytes(plan))
    _check_room(parents, {name: _bytes_of_rank(plan, name) for name in parents}, plan)


def check_direct(folder: Path, parent: Path) -> None:
    """DeepSpeed reads and writes past the page cache alone."""
    probe = folder / "probe"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600))
    except OSError as error:
        raise RankDiskError(
            f"nvme_path {parent} is on a file system without direct transfers (O_DIRECT): {error.strerror}",
            "name a folder on ext4, xfs or btrfs",
        ) from error
    finally:
        probe.unlink(missing_ok=True)


def _check_async_io() -> None:
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise RankDiskError(
            "offloading to nvme needs libaio, which cannot be compiled against here",
            "on Debian and Ubuntu: apt-get install libaio-dev; or use device cpu",
        )


def _check_lockable(num_bytes: int) -> None:
    """DeepSpeed locks its buffers in memory, and a process that may not is aborted without a word of why."""
    if _may_lock(num_bytes):
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    raise RankDiskError(
        f"buffers of nvme are {num_bytes} bytes of locked memory, and this process may lock {limit}",
        "ulimit -l unlimited (docker run --ulimit memlock=-1); or use device cpu, smaller buffers or a smaller "
        "sub_group_size",
    )


def _may_lock(num_bytes: int) -> bool:
    """Asks the kernel, which looks at limits and capabilities before it makes a page."""
    try:
        memory = mmap.mmap(-1, max(num_bytes, mmap.PAGESIZE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        return False
    start = ctypes.c_char.from_buffer(memory)
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.mlock2(ctypes.byref(start), ctypes.c_size_t(num_bytes), _MLOCK_ONFAULT) != 0
    reason = ctypes.get_errno()
    del start
    memory.close()
    return not failed or reason not in _NOT_ALLOWED


def _locked_bytes(plan: Plan) -> int:
    """At least so many: a sub-group may have more than sub_group_size by a weight."""
    zero = plan.deepspeed["zero_optimization"]
    num_bytes = 0
    if "offload_optimizer" in sections_on_disk(plan.deepspeed):
        largest = min(int(zero.get("sub_group_size", 1e9)), _owned(plan, plan.parameters.num_trained_parameters))
        num_bytes += 4 * largest * int(zero["offload_optimizer"].get("buffer_count", 4))
    if "offload_param" in sections_on_disk(plan.deepspeed):
        buffers = {**_DEFAULTS, **zero["offload_param"]}
        num_bytes += _weight_bytes(plan) * int(buffers["buffer_size"]) * int(buffers["buffer_count"])
        owned = _owned(plan, plan.parameters.num_trained_parameters)
        if owned > int(buffers["max_in_cpu"]):
            # Updates go through a buffer of what a sub-group has on all ranks.
            num_bytes += _weight_bytes(plan) * plan.world_size * min(int(zero.get("sub_group_size", 1e9)), owned)
    return num_bytes


def _bytes_of_rank(plan: Plan, section: str) -> int:
    if section == "offload_param":
        return _weight_bytes(plan) * _owned(plan, plan.parameters.num_model_parameters)
    return int(plan.deepspeed["fpdt"]["diskBytesPerParameter"]) * _owned(plan, plan.parameters.num_trained_parameters)


def _owned(plan: Plan, num_parameters: int) -> int:
    return -(-num_parameters // plan.world_size)


def _weight_bytes(plan: Plan) -> int:
    return int(DTYPES[plan.run["dtype"]].itemsize)


def _check_room(parents: Mapping[str, Path], num_bytes: Mapping[str, int], plan: Plan) -> None:
    """Every rank asks for all that are on its host, so that all refuse alike; sections may share a file system."""
    ranks_here = min(plan.world_size, plan.ranks_per_node)
    free, needed, named = dict[int, int](), dict[int, int](), dict[int, Path]()
    for name, parent in parents.items():
        try:
            file_system, device = os.statvfs(parent), parent.stat().st_dev
        except OSError as error:
            raise RankDiskError(f"nvme_path {parent} cannot be used: {error.strerror}", FOLDER_HINT) from error
        free[device], named[device] = file_system.f_bavail * file_system.f_frsize, parent
        needed[device] = needed.get(device, 0) + num_bytes[name] * ranks_here
    for device, parent in named.items():
        if free[device] < needed[device]:
            raise RankDiskError(
                f"nvme_path {parent} has {free[device]} bytes free, and {ranks_here} ranks keep {needed[device]} there",
                f"free {needed[device] - free[device]} bytes, name a folder on another disk, or train on more ranks",
            )
