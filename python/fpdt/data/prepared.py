"""Which token store belongs to a source: found by ranks, made by `fpdt.prepare` where it is not there.

A store is named by a digest of the source's size, time and sampled content, the tokenizer's files and the options that
change tokens. It is written aside and renamed, so that it is whole or not there; what a preparation that was ended has
left is taken away by the next one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fpdt.data.fingerprint import sampled
from fpdt.data.kinds import source_files
from fpdt.data.options import DataOptions
from fpdt.data.store import FACTS, VERSION, read_facts
from fpdt.data.tokenizer import tokenizer_digest
from fpdt.errors import DataError

CACHE_NAME = ".fpdt-cache"
MAKING = ".making-"
LOCK = "lock"


def store_folder(options: DataOptions) -> Path:
    """Where the store of a source is, or will be."""
    return _cache(options) / f"{options.path.name}-{_key(options)}"


def find_store(options: DataOptions) -> Path:
    """Raises DataError where a source was not prepared, or has changed since."""
    folder = store_folder(options)
    if folder.is_dir():
        return folder
    source = str(options.path.resolve())
    hint = "prepare it with python -m fpdt.prepare and the options of the run; fpdt run does so by itself"
    for other in sorted(_cache(options).glob(f"{options.path.name}-*/{FACTS}")):
        facts = read_facts(other.parent)
        if facts.source == source:
            size = sum(path.stat().st_size for path in source_files(options))
            raise DataError(
                f"{options.path}, its tokenizer or options have changed since it was prepared: it had "
                f"{facts.source_bytes} bytes, now {size}",
                hint,
            )
    raise DataError(f"{options.path} was not prepared: there is no {folder}", hint)


def make_store(options: DataOptions, fill: Callable[[Path], None]) -> Path:
    """The store of a source, made by `fill` in a folder aside where it is not there. Raises DataError."""
    folder, cache = store_folder(options), _cache(options)
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(cache)
        with _making(cache) as aside:
            fill(aside)
            _sync(aside)
            _publish(aside, folder)
            _sync(cache)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        raise DataError(
            f"cannot write tokens into {cache}: {error.strerror}", "make room, or name another folder with --data-cache"
        ) from error
    return folder


def _cache(options: DataOptions) -> Path:
    return options.cache or options.path.parent / CACHE_NAME


def _key(options: DataOptions) -> str:
    digest = hashlib.sha256(f"{VERSION} {options.field} {options.weights_field}".encode())
    for path in source_files(options):
        digest.update(f"{path.name} {path.stat().st_mtime_ns} ".encode())
        digest.update(sampled(path))
    if options.tokenizer is not None:
        digest.update(tokenizer_digest(options.tokenizer))
    return digest.hexdigest()[:16]


@contextmanager
def _making(cache: Path) -> Iterator[Path]:
    """A folder of this process, locked while it lives; gone at the end unless it was renamed."""
    aside = Path(tempfile.mkdtemp(prefix=MAKING, dir=cache))
    try:
        with (aside / LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _remove_abandoned(cache: Path) -> None:
    for aside in cache.glob(f"{MAKING}*"):
        try:
            with (aside / LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(aside, ignore_errors=True)
        except OSError:
            continue  # Somebody is at it, or was quicker.


def _publish(aside: Path, folder: Path) -> None:
    (aside / LOCK).unlink()
    try:
        aside.rename(folder)
    except OSError as error:
        # Another preparation of the same source was quicker.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _sync(folder: Path) -> None:
    """A folder's files, and its list of them, onto the disk."""
    for path in [*(path for path in folder.iterdir() if path.is_file()), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
