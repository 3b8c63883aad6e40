"""A file without a name, with its space reserved: what a pool of kind `file` lies in."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import tempfile
from pathlib import Path

from fpdt.errors import FpdtError

ALIGNMENT_BYTES = 4096
ZERO_BLOCK_BYTES = 1 << 20

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FALLOCATE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_NO_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


class FilePoolError(FpdtError):
    """A pool's file that cannot be made, or a transfer that failed."""


def open_nameless_file(folder: Path, num_bytes: int, name: str, direct: bool | None) -> tuple[int, bool]:
    """(descriptor, whether it is direct) of a new file of `num_bytes`, in whole blocks, that is in no folder any more.

    `direct` True: raise where the file system has no O_DIRECT; False: never; None: where it has. Raises FilePoolError
    for a folder that is missing, is none or may not be written to, for want of space, and for a missing O_DIRECT.
    """
    if num_bytes <= 0:
        raise ValueError(f"pool {name}: a file of {num_bytes} bytes; it needs 1 or more")
    descriptor = _create(folder, name)
    try:
        _reserve(descriptor, folder, -(-num_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES)
        return descriptor, direct is not False and _go_direct(descriptor, folder, bool(direct))
    except BaseException:
        os.close(descriptor)
        raise


def space_hint(descriptor: int, num_bytes: int) -> str:
    """What to do where `num_bytes` more do not fit beside the file."""
    file_system = os.fstatvfs(descriptor)
    missing = num_bytes - file_system.f_bavail * file_system.f_frsize
    free = f"free {missing} bytes there" if missing > 0 else "raise the quota or file size limit there"
    return f"choose another --disk-folder, {free}, or lower diskBytes"


def _create(folder: Path, name: str) -> int:
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"fpdt-{name}-", dir=folder)
    except OSError as error:
        hint = "choose another --disk-folder: one that exists, is a folder and may be written to"
        raise FilePoolError(f"cannot make a file in {folder}: {error.strerror}", hint) from error
    Path(path).unlink()
    return descriptor


def _reserve(descriptor: int, folder: Path, num_bytes: int) -> None:
    """Takes the space now, so that no write fails for want of it later."""
    try:
        try:
            os.posix_fallocate(descriptor, 0, num_bytes)
        except OSError as error:
            if error.errno not in _NO_FALLOCATE:
                raise
            _write_zeros(descriptor, num_bytes)
    except OSError as error:
        message = f"cannot reserve {num_bytes} bytes in {folder}: {error.strerror}"
        hint = space_hint(descriptor, num_bytes) if error.errno in NO_SPACE else "choose another --disk-folder"
        raise FilePoolError(message, hint) from error


def _write_zeros(descriptor: int, num_bytes: int) -> None:
    zeros = memoryview(bytes(ZERO_BLOCK_BYTES))
    done = 0
    while done < num_bytes:
        done += os.pwrite(descriptor, zeros[: num_bytes - done], done)


def _go_direct(descriptor: int, folder: Path, is_demanded: bool) -> bool:
    """Whether transfers now go past the page cache. A block is written and read: some file systems refuse only then."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
        with mmap.mmap(-1, ALIGNMENT_BYTES) as block:
            os.pwritev(descriptor, [block], 0)
            os.preadv(descriptor, [block], 0)
        return True
    except OSError as error:
        if error.errno not in _NO_DIRECT:
            raise FilePoolError(f"cannot write to a file in {folder}: {error.strerror}") from error
        if is_demanded:
            hint = "choose a --disk-folder on a local file system such as ext4 or xfs, or allow buffered transfers"
            raise FilePoolError(f"the file system of {folder} has no direct transfers (O_DIRECT)", hint) from error
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
        return False
