"""Builds of DeepSpeed's C++ ops that nobody goes on with.

DeepSpeed has torch compile an op at first use (torch.utils.cpp_extension, in TORCH_EXTENSIONS_DIR), under a file `lock`
that the compiling process makes, holds open and removes (torch.utils.file_baton). Who finds one waits until it is gone:
for ever, when the process that made it was killed.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path

from torch.utils.cpp_extension import get_default_build_root

LOCAL_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay"})
"""On others the process may be on another host."""
RELEASE_SECONDS = 1.0
"""Of a builder: from closing the file to removing it, and far more."""


def free_abandoned_builds(root: Path | None = None) -> list[Path]:
    """Removes the locks that no process has open, as far as /proc shows, and says so on stderr; other users' stay.

    On a file system that hosts may share they stay as well: who waits there is told which file to remove. `root`: of
    torch's builds, that of this environment when left out. Call it on one rank of a host.
    """
    root = _build_root() if root is None else root
    if not os.access(root, os.W_OK) or not Path("/proc/self/fd").is_dir():
        return []
    # Runs that start at once look one after the other: a lock made anew between a look and a removal is a sound one.
    with (root / ".fpdt-lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        suspects = _abandoned(root)
        if suspects:
            time.sleep(RELEASE_SECONDS)
        abandoned = [path for path, inode in _abandoned(root).items() if suspects.get(path) == inode]
        if abandoned and _file_system(root) not in LOCAL_FILE_SYSTEMS:
            _say(f"waits for the build that {_list(abandoned)} stands for. If no host compiles it, remove that file")
            return []
        for path in abandoned:
            path.unlink(missing_ok=True)
            _say(f"removed {path}, left by a process that was killed while it compiled; its build starts again")
        return abandoned


def _abandoned(root: Path) -> dict[Path, int]:
    """Locks of this user that nobody has open, and their inodes."""
    own = {}
    for path in (*root.glob("*/lock"), *root.glob("*/*/lock")):
        try:
            stat = path.stat()
        except FileNotFoundError:  # Released since.
            continue
        if stat.st_uid == os.getuid():
            own[path] = stat.st_ino
    opened = _open_files() if own else set()
    return {path: inode for path, inode in own.items() if str(path.resolve()) not in opened}


def _open_files() -> set[str]:
    """Of all processes of this user."""
    opened = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            opened.add(str(link.readlink()))
        except OSError:  # Closed since, or another user's.
            continue
    return opened


def _file_system(path: Path) -> str:
    """Its type, from proc(5)'s mountinfo; nothing where it is not told."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, told = line.partition(" - ")
        if fields.split()[2] == number:
            return told.split()[0]
    return ""


def _build_root() -> Path:
    """Of the builds, or of their folders for each version of Python."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())


def _say(text: str) -> None:
    print(f"DeepSpeed's ops: {text}", file=sys.stderr, flush=True)


def _list(paths: list[Path]) -> str:
    return ", ".join(map(str, paths))
