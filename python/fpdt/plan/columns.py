"""The columns of a plan as arrays, checked once here so that nothing downstream has to."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from fpdt.errors import PlanError
from fpdt.plan.header import CUT_SHORT, ColumnRow, Header
from fpdt.plan.op_kinds import SAME_VERSION
from fpdt.plan.sections import Array, Columns

_DTYPES = {
    "opKind": "uint8",
    "opStream": "uint8",
    "opTokens": "int64",
    "opKv": "int64",
    "opAttribute": "int32",
    "opScratch": "int64",
    "opViews": "int32",
    "opNumReads": "uint16",
    "opNumWrites": "uint16",
    "view": "int32",
    "opWaits": "int32",
    "wait": "int32",
    "accessBuffer": "int32",
    "accessStart": "int64",
    "accessEnd": "int64",
    "accessParam": "int16",
    "accessIndex": "int32",
}
_PER_OP = {
    "opKind": 1,
    "opStream": 1,
    "opTokens": 2,
    "opKv": 2,
    "opAttribute": 1,
    "opScratch": 1,
    "opNumReads": 1,
    "opNumWrites": 1,
}


def inflate_columns(rows: Sequence[ColumnRow], deflated: Mapping[str, bytes]) -> dict[str, bytes]:
    """The raw little-endian bytes of every column, in the header's order. Raises PlanError for what is not whole."""
    named = [row.name for row in rows]
    require(len(set(named)) == len(named), f"the header names a column twice: {named}")
    require(set(named) == set(deflated), f"the header names columns {sorted(named)}, received {sorted(deflated)}")
    return {row.name: _inflate(row, deflated[row.name]) for row in rows}


def _inflate(row: ColumnRow, data: bytes) -> bytes:
    expected = row.length * np.dtype(row.dtype).itemsize
    stream = zlib.decompressobj()
    try:
        # One byte more than expected shows a longer column without making all of it.
        raw = stream.decompress(data, expected + 1)
    except zlib.error as error:
        raise PlanError(f"column {row.name} is not deflated bytes: {error}", CUT_SHORT) from error
    require(len(raw) == expected, f"column {row.name} has {len(raw)} bytes, expected {expected}")
    require(stream.eof or not expected, f"column {row.name} was cut short")
    return raw


def digest_of(header: bytes, columns: Mapping[str, bytes]) -> str:
    """SHA-256 over the header as stored, then the uncompressed columns in the order of the mapping."""
    digest = hashlib.sha256(header)
    for raw in columns.values():
        digest.update(raw)
    return digest.hexdigest()


def read_columns(header: Header, raw: Mapping[str, bytes]) -> Columns:
    """Arrays of the right dtypes and lengths, with offsets that ascend."""
    arrays = {row.name: _array(row, raw[row.name]) for row in header.columns}
    missing = [name for name in _DTYPES if name not in arrays]
    require(not missing, f"the plan lacks the columns {', '.join(missing)}", SAME_VERSION)
    num_ops = sum(section.num_ops for section in header.sections)
    for name, width in _PER_OP.items():
        _check_length(name, arrays[name], width * num_ops)
    for offsets, values in (("opViews", "view"), ("opWaits", "wait")):
        _check_length(offsets, arrays[offsets], num_ops + 1)
        _check_offsets(offsets, arrays[offsets], arrays[values])
    num_accesses = len(arrays["accessBuffer"])
    for name in ("accessStart", "accessEnd", "accessParam", "accessIndex"):
        _check_length(name, arrays[name], num_accesses)
    return Columns(
        kind=arrays["opKind"],
        stream=arrays["opStream"],
        tokens=arrays["opTokens"].reshape(num_ops, 2),
        kv=arrays["opKv"].reshape(num_ops, 2),
        attribute=arrays["opAttribute"],
        scratch=arrays["opScratch"],
        views_at=arrays["opViews"],
        num_reads=arrays["opNumReads"],
        num_writes=arrays["opNumWrites"],
        view=arrays["view"],
        waits_at=arrays["opWaits"],
        wait=arrays["wait"],
        access_buffer=arrays["accessBuffer"],
        access_start=arrays["accessStart"],
        access_end=arrays["accessEnd"],
        access_param=arrays["accessParam"],
        access_index=arrays["accessIndex"],
    )


def _array(row: ColumnRow, raw: bytes) -> Array:
    expected = _DTYPES.get(row.name)
    require(expected is not None, f"this worker does not know the column {row.name}", SAME_VERSION)
    require(row.dtype == expected, f"column {row.name} has dtype {row.dtype}, expected {expected}", SAME_VERSION)
    return np.frombuffer(raw, dtype=np.dtype(row.dtype).newbyteorder("<"))


def _check_length(name: str, values: Array, expected: int) -> None:
    require(len(values) == expected, f"column {name} has {len(values)} values, expected {expected}")


def _check_offsets(name: str, offsets: Array, values: Array) -> None:
    ascending = offsets[0] == 0 and bool(np.all(offsets[1:] >= offsets[:-1]))
    require(ascending, f"the offsets {name} do not ascend from 0")
    require(int(offsets[-1]) == len(values), f"the offsets {name} end at {offsets[-1]}, of {len(values)} values")


def require(holds: bool, message: str, hint: str = CUT_SHORT) -> None:
    if not holds:
        raise PlanError(message, hint)
