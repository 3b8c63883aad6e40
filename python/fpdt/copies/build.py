"""Compiles the copy engine, once for each state of its sources, and finds it again: `python -m fpdt.copies`.

The library lies in the user's cache under a name made of sources, compiler and flags, so that it is never stale. Ranks
that ask at the same time wait for the one that compiles.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fpdt.errors import FpdtError

SOURCES = ("copies_api.cc", "copy_engine.cc", "copy_program.cc", "counters.cc", "cuda_device.cc", "thread_device.cc")
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-pthread")
COMPILERS = ("c++", "g++", "clang++")
FOLDER = Path(__file__).resolve().parents[3] / "native" / "cuda"


class CopiesUnavailableError(FpdtError):
    """There is no copy engine here; the message says why."""


def copies_library(folder: Path = FOLDER, cache: Path | None = None) -> Path:
    """The shared library, compiled now where it is not there yet. Raises CopiesUnavailableError where it cannot be."""
    if not folder.is_dir():
        raise CopiesUnavailableError(
            f"the sources of the copy engine are not in {folder}", "use fpdt from its npm package or repository"
        )
    compiler = _compiler()
    cache = _cache_folder() if cache is None else cache
    library = cache / f"copies-{_key(folder, compiler)}.so"
    if library.is_file():
        return library
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with library.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not library.is_file():
                _compile(compiler, folder, library)
    except OSError as error:
        hint = "set XDG_CACHE_HOME to a folder that this user may write to, with room for it"
        raise CopiesUnavailableError(f"cannot write {library}: {error.strerror}", hint) from error
    return library


def _compiler() -> str:
    """CXX where it is set, as with make; else the first that there is."""
    asked = os.environ.get("CXX")
    names = COMPILERS if asked is None else (asked,)
    found = next((path for path in map(shutil.which, names) if path is not None), None)
    if found is None:
        raise CopiesUnavailableError(
            f"there is no C++ compiler to build the copy engine with: looked for {', '.join(names)}",
            "install g++, or set CXX; every other copy mode works without",
        )
    return found


def _cache_folder() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "fpdt"


def _key(folder: Path, compiler: str) -> str:
    digest = hashlib.sha256("\0".join([compiler, _version(compiler), *FLAGS]).encode())
    for path in sorted([*folder.glob("*.h"), *(folder / name for name in SOURCES)]):
        try:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        except OSError as error:
            raise CopiesUnavailableError(
                f"cannot read {path}: {error.strerror}", "install fpdt again: a source of the copy engine is missing"
            ) from error
    return digest.hexdigest()[:16]


def _version(compiler: str) -> str:
    try:
        return subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=False).stdout
    except OSError as error:
        raise CopiesUnavailableError(f"{compiler} does not run: {error.strerror}", "set CXX to a compiler") from error


def _compile(compiler: str, folder: Path, library: Path) -> None:
    """Beside its place, then moved: what has the name is whole."""
    with tempfile.TemporaryDirectory(dir=library.parent) as made:
        output = Path(made) / library.name
        sources = [str(folder / name) for name in SOURCES]
        done = subprocess.run(
            [compiler, *FLAGS, *sources, "-o", str(output)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            first = next((line for line in lines if "error" in line), lines[0] if lines else "it said nothing")
            raise CopiesUnavailableError(
                f"{compiler} could not compile the copy engine: {first}", "set CXX to a compiler that knows C++17"
            )
        output.replace(library)


def main() -> None:
    """For the set-up: builds it, or says once why there is none, which is no error."""
    try:
        print(f"fpdt: copy engine {copies_library()}")
    except CopiesUnavailableError as error:
        print(
            f"fpdt: no native copy engine ({error}); copy modes native and threads are not there, all else works",
            file=sys.stderr,
        )
