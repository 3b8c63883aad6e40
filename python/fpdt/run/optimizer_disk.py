"""Where an optimizer's states go that DeepSpeed keeps on a disk: a folder of this rank's own inside nvme_path.

DeepSpeed names its files by rank alone, so that two runs would write into each other's, and leaves them behind. The
folder here is gone with the rank, however that ends: a process beside it waits for its end and removes what is left.
Where that was killed too, the next run with the same nvme_path removes the folder, which nobody holds locked then.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fpdt.errors import FpdtError
from fpdt.plan import Plan

PREFIX = "fpdt-optimizer-"
_MAKING = ".fpdt-making-"
"""Of a folder that is not locked yet."""
_JANITOR = "import shutil, sys; sys.stdin.buffer.read(); shutil.rmtree(sys.argv[1], ignore_errors=True)"


class OptimizerDiskError(FpdtError):
    """States of an optimizer that cannot be kept in nvme_path."""


def states_are_on_disk(config: Mapping[str, Any]) -> bool:
    """Below ZeRO-3 DeepSpeed keeps them in host memory, whatever the device says."""
    zero = config.get("zero_optimization", {})
    return int(zero.get("stage", 0)) == 3 and (zero.get("offload_optimizer") or {}).get("device") == "nvme"


@contextmanager
def optimizer_disk(plan: Plan) -> Iterator[Path | None]:
    """The rank's folder; None where the plan needs none. Raises OptimizerDiskError before anything is built."""
    if not states_are_on_disk(plan.deepspeed):
        yield None
        return
    parent = Path(plan.deepspeed["zero_optimization"]["offload_optimizer"]["nvme_path"])
    _check_async_io()
    _remove_abandoned(parent)
    _check_room(parent, _bytes_of_rank(plan), min(plan.world_size, plan.ranks_per_node))
    folder, descriptor = _make_locked(parent)
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _JANITOR, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    ) as janitor:
        try:
            yield folder
        finally:
            assert janitor.stdin is not None
            janitor.stdin.close()
            janitor.wait()
            os.close(descriptor)


def with_folder(config: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """The ds_config with the rank's folder in place of nvme_path."""
    if folder is None:
        return dict(config)
    zero = config["zero_optimization"]
    offload = {**zero["offload_optimizer"], "nvme_path": str(folder)}
    return {**config, "zero_optimization": {**zero, "offload_optimizer": offload}}


def _check_async_io() -> None:
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise OptimizerDiskError(
            "offload_optimizer to nvme needs libaio, which cannot be compiled against here",
            "on Debian and Ubuntu: apt-get install libaio-dev; or use offload_optimizer device cpu",
        )


def _bytes_of_rank(plan: Plan) -> int:
    owned = -(-plan.parameters.num_trained_parameters // plan.world_size)
    return int(plan.deepspeed["fpdt"]["diskBytesPerParameter"]) * owned


def _check_room(parent: Path, num_bytes: int, ranks_here: int) -> None:
    """Every rank asks for all that are on its host, so that all refuse alike."""
    try:
        file_system = os.statvfs(parent)
    except OSError as error:
        raise OptimizerDiskError(f"nvme_path {parent} cannot be used: {error.strerror}", _FOLDER_HINT) from error
    free, needed = file_system.f_bavail * file_system.f_frsize, num_bytes * ranks_here
    if free < needed:
        raise OptimizerDiskError(
            f"nvme_path {parent} has {free} bytes free, and {ranks_here} ranks keep {needed} bytes of states there",
            f"free {needed - free} bytes, name a folder on another disk, or train on more ranks",
        )


_FOLDER_HINT = "name a folder that is there on every host and may be written to"


def _make_locked(parent: Path) -> tuple[Path, int]:
    """A folder and the descriptor that holds it locked, which the end of the process closes."""
    try:
        made = Path(tempfile.mkdtemp(prefix=_MAKING, dir=parent))
    except OSError as error:
        raise OptimizerDiskError(
            f"cannot make a folder in nvme_path {parent}: {error.strerror}", _FOLDER_HINT
        ) from error
    descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return made.rename(parent / made.name.replace(_MAKING, PREFIX)), descriptor


def _remove_abandoned(parent: Path) -> None:
    """Folders of ranks that are gone."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # Gone meanwhile, or not made by a rank.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # Of a rank that lives.
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
