"""Files that are token ids as they are: raw bytes, `.bin` without a header, and `.npy`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpdt.data.options import DTYPES
from fpdt.data.tokens import TokenFile
from fpdt.errors import DataError

NPY_DTYPES = ("uint8", "uint16", "int32", "uint32", "int64")


def open_bytes(path: Path, vocab_size: int) -> TokenFile:
    """Each byte a token, id = byte % vocabSize."""
    check_file(path)
    return TokenFile(path, np.memmap(path, dtype=np.uint8, mode="r"), vocab_size, is_text=True)


def open_bin(path: Path, vocab_size: int, dtype: str | None) -> TokenFile:
    """`dtype`: one of DTYPES. Raises DataError where the file is no whole number of them."""
    check_file(path)
    kind = np.dtype(dtype or DTYPES[0]).newbyteorder("<")
    if path.stat().st_size % kind.itemsize:
        raise DataError(
            f"{path} has {path.stat().st_size} bytes",
            f"a .bin file holds {kind.name} ids, {kind.itemsize} bytes each; --data-dtype says which of {DTYPES}",
        )
    return TokenFile(path, np.memmap(path, dtype=kind, mode="r"), vocab_size)


def open_npy(path: Path, vocab_size: int) -> TokenFile:
    """A flat array of one of NPY_DTYPES. Raises DataError for another."""
    check_file(path)
    try:
        ids: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{path} is not an .npy array: {error}", "save it with numpy.save") from error
    if ids.ndim != 1 or ids.dtype.name not in NPY_DTYPES:
        wanted = f"save a flat array of token ids as one of {', '.join(NPY_DTYPES)}"
        raise DataError(f"{path} holds {ids.dtype} of shape {list(ids.shape)}", wanted)
    return TokenFile(path, ids, vocab_size)


def check_file(path: Path) -> None:
    """Raises DataError for a file that is missing, is none, may not be read, or is empty."""
    if not path.is_file():
        raise DataError(f"there is no data file {path}", "give the path of a file that docs/data.md knows")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path} may not be read by this user", f"chmod a+r {path}, or copy it")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", "give a file with at least seqLen + 1 tokens")
