"""Where weights and an optimizer's states go that DeepSpeed keeps on a disk: a folder of this rank's own in nvme_path.

DeepSpeed names its files by rank alone, so that two runs would write into each other's, and leaves them behind. The
folders here are gone with the rank, however that ends: a process beside it waits for its end and removes what is left.
Where that was killed too, the next run with the same nvme_path removes them, which nobody holds locked then.
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

from fpdt.plan import Plan
from fpdt.run.disk_needs import FOLDER_HINT, RankDiskError, check_direct, check_disk_needs, sections_on_disk

PREFIX = "fpdt-rank-"
_MAKING = ".fpdt-making-"
"""Of a folder that is not locked yet."""
_JANITOR = (
    "import shutil, sys; sys.stdin.buffer.read(); [shutil.rmtree(path, ignore_errors=True) for path in sys.argv[1:]]"
)


@contextmanager
def rank_disk(plan: Plan) -> Iterator[Mapping[str, Path]]:
    """The rank's folders by section. Raises RankDiskError before anything is built."""
    sections = sections_on_disk(plan.deepspeed)
    if not sections:
        yield {}
        return
    parents = {name: Path(plan.deepspeed["zero_optimization"][name]["nvme_path"]) for name in sections}
    for parent in set(parents.values()):
        _remove_abandoned(parent)
    check_disk_needs(plan, parents)
    made = dict[str, tuple[Path, int]]()
    try:
        for name, parent in parents.items():
            made[name] = _make_locked(parent)
            check_direct(made[name][0], parent)
        folders = {name: folder for name, (folder, _) in made.items()}
        with _janitor(folders):
            yield folders
    finally:
        for folder, descriptor in made.values():
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


@contextmanager
def _janitor(folders: Mapping[str, Path]) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _JANITOR, *map(str, folders.values())],
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as janitor:
        try:
            yield
        finally:
            assert janitor.stdin is not None
            janitor.stdin.close()
            janitor.wait()


def with_folders(config: Mapping[str, Any], folders: Mapping[str, Path]) -> dict[str, Any]:
    """The ds_config with the rank's folders in place of each nvme_path."""
    if not folders:
        return dict(config)
    zero = config["zero_optimization"]
    sections = {name: {**zero[name], "nvme_path": str(folder)} for name, folder in folders.items()}
    return {**config, "zero_optimization": {**zero, **sections}}


def _make_locked(parent: Path) -> tuple[Path, int]:
    """A folder and the descriptor that holds it locked, which the end of the process closes."""
    try:
        made = Path(tempfile.mkdtemp(prefix=_MAKING, dir=parent))
    except OSError as error:
        raise RankDiskError(f"cannot make a folder in nvme_path {parent}: {error.strerror}", FOLDER_HINT) from error
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
