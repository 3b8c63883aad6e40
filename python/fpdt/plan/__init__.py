"""Reads an execution plan: from its wire frames (header, prose, deflated columns) or from a plan.json."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fpdt.errors import PlanError
from fpdt.plan.check_header import check_header
from fpdt.plan.check_ops import check_ops
from fpdt.plan.check_program import check_program
from fpdt.plan.columns import digest_of, inflate_columns, read_columns
from fpdt.plan.data import Plan
from fpdt.plan.header import PLAN_VERSION, Header, check_version, parse_header
from fpdt.plan.nouns import (
    DTYPE_BYTES,
    Attribute,
    Buffer,
    Call,
    HeadMap,
    Layout,
    Link,
    Mask,
    ParameterTable,
    ParameterView,
    Pool,
    Table,
    Turn,
    turn_name,
)
from fpdt.plan.op_kinds import OP_KINDS, OpKind
from fpdt.plan.sections import Access, Columns, Op, Range, Section

__all__ = [
    "DTYPE_BYTES",
    "OP_KINDS",
    "PLAN_VERSION",
    "Access",
    "Attribute",
    "Buffer",
    "Call",
    "Columns",
    "Frames",
    "HeadMap",
    "Header",
    "Layout",
    "Link",
    "Mask",
    "Op",
    "OpKind",
    "ParameterTable",
    "ParameterView",
    "Plan",
    "PlanError",
    "Pool",
    "Range",
    "Section",
    "Table",
    "Turn",
    "decode",
    "load_plan",
    "read_frames",
    "turn_name",
]


class Frames(NamedTuple):
    """A plan as it travels: columns by name, each deflated."""

    header: bytes
    prose: bytes
    columns: dict[str, bytes]


def load_plan(path: str | Path) -> Plan:
    """Reads a plan.json. Raises PlanError when the file is not a plan, was cut short or was changed."""
    return decode(*read_frames(path))


def read_frames(path: str | Path) -> Frames:
    """The frames of a plan.json, not decoded yet. Raises PlanError for a file that is not whole, or was changed."""
    frames, digest = _read_file(path)
    header = parse_header(frames.header)
    found = digest_of(frames.header, inflate_columns(header.columns, frames.columns))
    if found != digest:
        raise PlanError(f"{path} says digest {digest}, its content has {found}: it was changed", _write_again(path))
    return frames


def decode(header_bytes: bytes, prose: bytes, columns: Mapping[str, bytes]) -> Plan:
    """A plan from its frames. Raises PlanError; a plan that comes back is complete and names only what exists."""
    header = parse_header(header_bytes)
    check_header(header)
    raw = inflate_columns(header.columns, columns)
    decoded = read_columns(header, raw)
    sections = _sections(header, decoded)
    check_ops(header, decoded, sections)
    check_program(header, sections)
    document = json.loads(header_bytes)
    return Plan(
        header=header,
        digest=digest_of(header_bytes, raw),
        prose=prose,
        columns=decoded,
        sections=sections,
        model=document["model"],
        run=document["run"],
        deepspeed=document["deepspeed"],
        strategy=document["strategy"],
    )


def _sections(header: Header, columns: Columns) -> dict[str, Section]:
    kinds = tuple(OP_KINDS[row.name] for row in header.op_kinds)
    sections: dict[str, Section] = {}
    first = 0
    for row in header.sections:
        params = tuple(param.name for param in row.params)
        sections[row.name] = Section(
            row.name, params, first, row.num_ops, columns, kinds, header.streams, header.attributes, header.buffers
        )
        first += row.num_ops
    return sections


def _read_file(path: str | Path) -> tuple[Frames, object]:
    hint = _write_again(path)
    try:
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror}", hint) from error
    except ValueError as error:
        raise PlanError(f"{path} is not JSON, or was cut short: {error}", hint) from error
    if not isinstance(document, dict) or document.get("kind") != "executionPlanFile":
        raise PlanError(f"{path} is not a plan file", hint)
    check_version(document.get("version"), f"the plan file {path}")
    try:
        columns = {name: base64.b64decode(text, validate=True) for name, text in document["columns"].items()}
        header, prose = document["header"].encode(), document["prose"].encode()
        return Frames(header, prose, columns), document["digest"]
    except (KeyError, AttributeError, TypeError, binascii.Error) as error:
        raise PlanError(f"{path} lacks a part of a plan file: {error!r}", hint) from error


def _write_again(path: str | Path) -> str:
    return f"write it again with `fpdt plan --output {path}`"
