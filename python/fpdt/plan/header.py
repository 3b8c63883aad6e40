"""The executed header of a plan: everything a worker obeys but the ops, parsed and held against its schema."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import from_json

from fpdt.errors import PlanError
from fpdt.plan.nouns import (
    Attribute,
    Buffer,
    Kernels,
    Layout,
    Link,
    ModelSpec,
    Param,
    ParameterTable,
    Pool,
    Programs,
    RunSpec,
    Table,
)
from fpdt.plan.op_kinds import SAME_VERSION, OpKind, Views
from fpdt.plan.part import Count, Part, Positive

PLAN_VERSION: Literal[2] = 2
CUT_SHORT = "plan again: the plan was cut short or changed after it was made"
PLAN_AGAIN = "plan again with `fpdt plan`: plans of version 1 are not read any more"


class OpKindRow(Part):
    name: str
    stream: str
    reads: tuple[str, ...] | Literal["many"]
    writes: tuple[str, ...] | Literal["many"]
    accumulates: tuple[str, ...] | Literal["many"]
    external: bool

    def kind(self) -> OpKind:
        groups: tuple[Views, Views, Views] = (self.reads, self.writes, self.accumulates)
        return OpKind(self.name, self.stream, *groups, self.external)  # type: ignore[arg-type]


class SectionRow(Part):
    name: str
    params: tuple[Param, ...]
    num_ops: Count


class ColumnRow(Part):
    name: str
    dtype: Literal["uint8", "uint16", "int16", "int32", "int64"]
    length: Count


class Header(Part):
    """Everything a worker executes."""

    kind: Literal["executionPlan"]
    version: Literal[2]
    features: tuple[str, ...]
    device: Literal["cpu", "cuda"]
    num_ranks: Positive
    ranks_per_node: Positive
    model: ModelSpec
    run: RunSpec
    deepspeed: dict[str, Any]
    strategy: dict[str, Any]
    parameters: ParameterTable
    layout: Layout
    pools: tuple[Pool, ...]
    links: tuple[Link, ...]
    streams: tuple[str, ...]
    kernels: Kernels
    collective_timeout_seconds: Positive
    op_kinds: tuple[OpKindRow, ...]
    buffers: tuple[Buffer, ...]
    attributes: tuple[Attribute, ...]
    tables: tuple[Table, ...]
    sections: tuple[SectionRow, ...]
    programs: Programs
    columns: tuple[ColumnRow, ...]


def parse_header(text: bytes) -> Header:
    """Raises PlanError for what is not the header of an execution plan of this version, naming the first bad field."""
    try:
        document = from_json(text)
    except ValueError as error:
        raise PlanError(f"the plan header is not JSON: {error}", CUT_SHORT) from error
    if not isinstance(document, dict) or document.get("kind") != "executionPlan":
        raise PlanError("the header is not that of an execution plan", CUT_SHORT)
    check_version(document.get("version"), "the plan")
    try:
        return Header.model_validate_json(text, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise PlanError(f"the plan header's {place}: {first['msg']}{more}", SAME_VERSION) from error


def check_version(version: object, what: str) -> None:
    """Raises PlanError where `version` is not the one this worker reads."""
    if version != PLAN_VERSION:
        hint = PLAN_AGAIN if version == 1 else SAME_VERSION
        raise PlanError(f"{what} has version {version}, this worker reads {PLAN_VERSION}", hint)
