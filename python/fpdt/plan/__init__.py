"""Reads an execution plan: from its wire frames (a JSON header and raw columns) or from a plan.json."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpdt.errors import PlanError
from fpdt.plan.canonical import canonical_bytes
from fpdt.plan.columns import decode_sections
from fpdt.plan.data import (
    BIND_NAMES,
    DTYPE_BYTES,
    FIXED,
    LAYER,
    PLAN_VERSION,
    SECTIONS,
    SEGMENT,
    STREAMS,
    Access,
    Buffer,
    HeadMap,
    Op,
    ParameterTable,
    ParameterView,
    Part,
    Plan,
    Pool,
    Range,
    Scope,
    Section,
    Stage,
)

__all__ = [
    "BIND_NAMES",
    "DTYPE_BYTES",
    "FIXED",
    "LAYER",
    "PLAN_VERSION",
    "SECTIONS",
    "SEGMENT",
    "STREAMS",
    "Access",
    "Buffer",
    "HeadMap",
    "Op",
    "ParameterTable",
    "ParameterView",
    "Part",
    "Plan",
    "PlanError",
    "Pool",
    "Range",
    "Scope",
    "Section",
    "Stage",
    "decode",
    "load_plan",
]

_SAME_VERSION = "install the npm and the Python package in the same version"
_PLAN_AGAIN = "plan again: the plan was cut short or changed after it was made"


def load_plan(path: str | Path) -> Plan:
    """Reads a plan.json. Raises PlanError when the file is not a plan, was cut short or was changed."""
    hint = f"write it again with `fpdt plan --output {path}`"
    try:
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise PlanError(f"cannot read the plan {path}: {error.strerror}", hint) from error
    except ValueError as error:
        raise PlanError(f"{path} is not JSON, or was cut short: {error}", hint) from error
    if not isinstance(document, dict) or document.get("kind") != "executionPlanFile":
        raise PlanError(f"{path} is not a plan file", hint)
    if document.get("version") != PLAN_VERSION:
        raise PlanError(
            f"{path} has plan file version {document.get('version')}, this worker reads {PLAN_VERSION}", hint
        )
    try:
        columns = {name: base64.b64decode(text, validate=True) for name, text in document["columns"].items()}
        header, digest = json.dumps(document["header"]).encode(), document["digest"]
    except (KeyError, AttributeError, TypeError, binascii.Error) as error:
        raise PlanError(f"{path} lacks a part of a plan file: {error!r}", hint) from error
    plan = decode(header, columns)
    if plan.digest != digest:
        raise PlanError(f"{path} says digest {digest}, its content has {plan.digest}: it was changed", hint)
    return plan


def decode(header_bytes: bytes, columns: Mapping[str, bytes]) -> Plan:
    """A plan from the header and the raw columns by name. Raises PlanError; a plan that comes back is complete."""
    header = _parse_header(header_bytes)
    try:
        buffers = tuple(_buffer(item) for item in header["buffers"])
        sections = decode_sections(header, columns, buffers)
        return Plan(
            header=header,
            digest=plan_digest(header, columns),
            version=header["version"],
            sections=sections,
            buffers=buffers,
            model=header["model"],
            run=header["run"],
            cluster=header["cluster"],
            deepspeed=header["deepspeed"],
            strategy=header["strategy"],
            parameters=_parameters(header["parameters"]),
            head_map=_head_map(header["headMap"]),
            arenas={pool: int(header["arenas"][pool]) for pool in ("hbm", "host")},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise PlanError(f"the plan header lacks or garbles a field: {error!r}", _SAME_VERSION) from error


def plan_digest(header: Mapping[str, Any], columns: Mapping[str, bytes]) -> str:
    """SHA-256 over the canonical header and the bytes of each column, in the order the header lists them."""
    digest = hashlib.sha256(canonical_bytes(header))
    for column in header["columns"]:
        digest.update(columns[column["name"]])
    return digest.hexdigest()


def _parse_header(header_bytes: bytes) -> Mapping[str, Any]:
    try:
        header = json.loads(header_bytes)
    except ValueError as error:
        raise PlanError(f"the plan header is not JSON: {error}", _PLAN_AGAIN) from error
    if not isinstance(header, dict) or header.get("kind") != "executionPlan":
        raise PlanError("the header is not that of an execution plan", _PLAN_AGAIN)
    if header.get("version") != PLAN_VERSION:
        message = f"the plan has version {header.get('version')}, this worker runs {PLAN_VERSION}"
        raise PlanError(message, _SAME_VERSION)
    return header


def _buffer(item: Mapping[str, Any]) -> Buffer:
    return Buffer(
        id=item["id"],
        name=item["name"],
        pool=item["pool"],
        dtype=item["dtype"],
        shape=tuple(item["shape"]),
        strides=tuple(item["strides"]),
        instances=item["instances"],
        instance_bytes=item["instanceBytes"],
        offset=item["offset"],
        sections=tuple(item["sections"]),
        scope=item["scope"],
    )


def _parameters(table: Mapping[str, Any]) -> ParameterTable:
    return ParameterTable(
        layer=_parameter_views(table["layer"]),
        num_pre_elements=table["numPreElements"],
        head=_parameter_views(table["head"]),
        embed=_parameter_views(table["embed"]),
        num_layer_elements=table["numLayerElements"],
        num_head_elements=table["numHeadElements"],
        num_embed_elements=table["numEmbedElements"],
        num_model_parameters=table["numModelParameters"],
    )


def _parameter_views(views: Any) -> tuple[ParameterView, ...]:
    return tuple(
        ParameterView(view["name"], tuple(view["shape"]), view["offset"], view["numel"], view["trainable"])
        for view in views
    )


def _head_map(heads: Mapping[str, Any]) -> HeadMap:
    return HeadMap(query=tuple(map(tuple, heads["query"])), key_value=tuple(map(tuple, heads["keyValue"])))
