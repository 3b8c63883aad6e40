"""Ops from the columns of a plan, checked once here so that nothing downstream has to."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from fpdt.errors import PlanError
from fpdt.plan.data import BIND_NAMES, SECTIONS, STREAMS, Access, Buffer, Op, Part, Range, Section
from fpdt.plan.op_kinds import KIND_STREAMS

_TYPE_CODES = {"uint8": "B", "int32": "i", "float64": "d"}
_GROUPS = ("read", "write", "accumulate")
_PER_OP = {"opKind": 1, "opStream": 1, "opLayerSlot": 1, "opTokens": 2, "opKv": 2, "opScratch": 1}
_CUT_SHORT = "plan again: the plan was cut short or changed after it was made"
_UPGRADE = "install the npm and the Python package in the same version"

Columns = Mapping[str, Sequence[Any]]
T = TypeVar("T")


def decode_sections(
    header: Mapping[str, Any], raw: Mapping[str, bytes], buffers: Sequence[Buffer]
) -> dict[str, Section]:
    """The sections by name. Raises PlanError for what is missing, too short, out of range or unknown."""
    columns = _typed_columns(header["columns"], raw)
    num_ops = sum(section["numOps"] for section in header["sections"])
    _check_lengths(columns, num_ops)
    kinds = _known_kinds(header["opKinds"])
    ops = _OpReader(columns, kinds, buffers)
    sections: dict[str, Section] = {}
    start = 0
    for described in header["sections"]:
        section = _section(described, ops, start)
        sections[section.name] = section
        start += described["numOps"]
    missing = [name for name in SECTIONS if name not in sections]
    _require(not missing, f"the plan lacks the sections {', '.join(missing)}", _UPGRADE)
    return sections


def _typed_columns(descriptors: Sequence[Mapping[str, Any]], raw: Mapping[str, bytes]) -> Columns:
    named = [descriptor["name"] for descriptor in descriptors]
    _require(set(named) == set(raw), f"the header names columns {sorted(named)}, received {sorted(raw)}")
    return {descriptor["name"]: _typed(descriptor, raw[descriptor["name"]]) for descriptor in descriptors}


def _typed(descriptor: Mapping[str, Any], data: bytes) -> Sequence[Any]:
    name, length = descriptor["name"], descriptor["length"]
    code = _TYPE_CODES.get(descriptor["dtype"])
    if code is None:
        raise PlanError(f"column {name} has the unknown dtype {descriptor['dtype']}", _UPGRADE)
    values = array(code)
    expected = length * values.itemsize
    _require(len(data) == expected, f"column {name} has {len(data)} bytes, expected {expected}")
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def _check_lengths(columns: Columns, num_ops: int) -> None:
    expected = {name: width * num_ops for name, width in _PER_OP.items()}
    for offsets in ("opReads", "opWrites", "opAccumulates", "opWaits"):
        expected[offsets] = num_ops + 1
    for name, length in expected.items():
        found = len(columns[name]) if name in columns else None
        _require(found == length, f"column {name} has {found} values, {num_ops} ops need {length}")
    for group in _GROUPS:
        total = columns[f"op{group.capitalize()}s"][-1]
        for part in ("Buffer", "Start", "End", "Bind", "Index"):
            _check_access_column(columns, f"{group}{part}", total)
    _check_access_column(columns, "wait", columns["opWaits"][-1])


def _check_access_column(columns: Columns, name: str, total: int) -> None:
    found = len(columns[name]) if name in columns else None
    _require(found == total, f"column {name} has {found} values, its offsets end at {total}")


def _known_kinds(kinds: Sequence[str]) -> Sequence[str]:
    unknown = [kind for kind in kinds if kind not in KIND_STREAMS]
    _require(not unknown, f"this worker does not know the op kinds {', '.join(map(repr, unknown))}", _UPGRADE)
    return kinds


class _OpReader:
    """Makes ops out of rows of the columns; equal accesses are one object."""

    def __init__(self, columns: Columns, kinds: Sequence[str], buffers: Sequence[Buffer]) -> None:
        self._columns = columns
        self._kinds = kinds
        self._buffers = buffers
        self._shared: dict[Access, Access] = {}
        self._groups = {group: self._accesses(group) for group in _GROUPS}

    def read(self, row: int, op_id: int) -> Op:
        columns = self._columns
        kind = self._pick(self._kinds, columns["opKind"][row], f"op {op_id} has kind")
        stream = self._pick(STREAMS, columns["opStream"][row], f"op {op_id} has stream")
        _require(stream == KIND_STREAMS[kind], f"op {op_id} {kind} is on stream {stream}, not {KIND_STREAMS[kind]}")
        kv = Range(*columns["opKv"][2 * row : 2 * row + 2])
        return Op(
            id=op_id,
            kind=kind,
            stream=stream,
            layer_slot=columns["opLayerSlot"][row],
            tokens=Range(*columns["opTokens"][2 * row : 2 * row + 2]),
            kv=None if kv.start < 0 else kv,
            reads=self._group("read", row),
            writes=self._group("write", row),
            accumulates=self._group("accumulate", row),
            waits=tuple(self._columns["wait"][slice(*columns["opWaits"][row : row + 2])]),
            scratch_bytes=int(columns["opScratch"][row]),
        )

    def _group(self, group: str, row: int) -> tuple[Access, ...]:
        offsets = self._columns[f"op{group.capitalize()}s"]
        return tuple(self._groups[group][offsets[row] : offsets[row + 1]])

    def _accesses(self, group: str) -> list[Access]:
        _check_offsets(group, self._columns[f"op{group.capitalize()}s"])
        fields = (self._columns[f"{group}{name}"] for name in ("Buffer", "Start", "End", "Bind", "Index"))
        return [self._checked(Access(*values)) for values in zip(*fields, strict=True)]

    def _checked(self, access: Access) -> Access:
        known = self._shared.get(access)
        if known is not None:
            return known
        buffer = self._pick(self._buffers, access.buffer, "an access names buffer")
        rows = f"rows [{access.start}:{access.end}) of {buffer.name}, which has {buffer.shape[0]}"
        _require(0 <= access.start < access.end <= buffer.shape[0], f"an access names {rows}")
        self._pick(BIND_NAMES, access.bind, "an access has bind")
        self._shared[access] = access
        return access

    @staticmethod
    def _pick(items: Sequence[T], index: int, what: str) -> T:
        _require(0 <= index < len(items), f"{what} {index}, of {len(items)}")
        return items[index]


def _check_offsets(group: str, offsets: Sequence[int]) -> None:
    ascending = offsets[0] == 0 and all(a <= b for a, b in pairwise(offsets))
    _require(ascending, f"the {group} offsets do not ascend from 0")


def _section(described: Mapping[str, Any], reader: _OpReader, start: int) -> Section:
    ops = tuple(reader.read(start + op_id, op_id) for op_id in range(described["numOps"]))
    parts = tuple(Part(part["layerSlot"], part["start"], part["end"]) for part in described["parts"])
    _check_parts(described["name"], ops, parts)
    return Section(described["name"], ops, parts)


def _check_parts(name: str, ops: Sequence[Op], parts: Sequence[Part]) -> None:
    ends = [0, *(part.end for part in parts)]
    covered = all(part.start == before for part, before in zip(parts, ends, strict=False)) and ends[-1] == len(ops)
    _require(covered, f"the parts of {name} do not cover its {len(ops)} ops")
    for part in parts:
        for op in ops[part.start : part.end]:
            late = next((wait for wait in op.waits if not part.start <= wait < op.id), None)
            found = f"op {op.id} {op.kind} of {name} waits for op {late}"
            _require(late is None, f"{found}, which is not an earlier op of its part")


def _require(holds: bool, message: str, hint: str = _CUT_SHORT) -> None:
    if not holds:
        raise PlanError(message, hint)
