"""Writes small plans by hand, through the real encoding: header, columns, digest and all."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpdt.plan import BIND_NAMES, DTYPE_BYTES, SECTIONS, STREAMS, Plan, decode
from fpdt.plan.canonical import canonical_bytes
from fpdt.plan.op_kinds import KIND_STREAMS

ALIGNMENT = 512
TYPE_CODES = {"uint8": "B", "int32": "i", "float64": "d"}
OP_KINDS = list(KIND_STREAMS)
NO_PARAMETERS: Mapping[str, Any] = {
    "layer": [{"name": "weight", "shape": [2, 3], "offset": 0, "numel": 6, "trainable": True}],
    "numPreElements": 6,
    "head": [],
    "embed": [],
    "numLayerElements": 6,
    "numHeadElements": 0,
    "numEmbedElements": 0,
    "numModelParameters": 6,
}


@dataclass(frozen=True)
class View:
    """What `PlanBuilder.view` makes: an access by buffer name."""

    buffer: str
    start: int
    end: int
    bind: str = "fixed"
    index: int = 0


@dataclass
class PlanBuilder:
    """Buffers get ascending addresses unless `offset` says otherwise; ops go to the last part begun."""

    num_layers: int = 1
    segment_layers: int = 1
    device: str = "cpu"
    buffers: list[dict[str, Any]] = field(default_factory=list)
    sections: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in SECTIONS})
    parts: dict[str, list[dict[str, int]]] = field(default_factory=lambda: {name: [] for name in SECTIONS})
    arenas: dict[str, int] = field(default_factory=lambda: {"hbm": 0, "host": 0})
    op_kinds: list[str] = field(default_factory=lambda: list(OP_KINDS))
    current: str = ""

    def buffer(
        self,
        name: str,
        rows: int,
        inner: Sequence[int] = (),
        *,
        dtype: str = "float32",
        pool: str = "hbm",
        instances: int = 1,
        scope: str = "section",
        offset: int | None = None,
    ) -> PlanBuilder:
        shape = [rows, *inner]
        instance_bytes = math.ceil(math.prod(shape) * DTYPE_BYTES[dtype] / ALIGNMENT) * ALIGNMENT
        start = self.arenas[pool] if offset is None else offset
        self.arenas[pool] = max(self.arenas[pool], start + instances * instance_bytes)
        fields = {"name": name, "pool": pool, "dtype": dtype, "shape": shape, "instances": instances, "scope": scope}
        strides = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
        placed = {"id": len(self.buffers), "strides": strides, "instanceBytes": instance_bytes, "offset": start}
        self.buffers.append({**fields, **placed})
        return self

    def part(self, section: str, layer_slot: int = 0) -> PlanBuilder:
        self.current = section
        start = len(self.sections[section])
        self.parts[section].append({"layerSlot": layer_slot, "start": start, "end": start})
        return self

    def op(
        self,
        kind: str,
        reads: Iterable[View] = (),
        writes: Iterable[View] = (),
        accumulates: Iterable[View] = (),
        waits: Iterable[int] = (),
        **more: Any,
    ) -> PlanBuilder:
        """`more`: layer_slot, tokens, kv, scratch, stream."""
        part = self.parts[self.current][-1]
        part["end"] += 1
        groups = {"reads": list(reads), "writes": list(writes), "accumulates": list(accumulates)}
        slot = more.pop("layer_slot", part["layerSlot"])
        self.sections[self.current].append({"kind": kind, "slot": slot, "waits": list(waits), **groups, **more})
        return self

    def encode(self) -> tuple[bytes, dict[str, bytes]]:
        ops = [op for name in SECTIONS for op in self.sections[name]]
        typed = {name: _pack(dtype, values) for name, (dtype, values) in self._columns(ops).items()}
        columns = {name: data for name, (_, _, data) in typed.items()}
        described = [{"name": name, "dtype": dtype, "length": size} for name, (dtype, size, _) in typed.items()]
        return canonical_bytes({**self._header(), "columns": described}), columns

    def build(self) -> Plan:
        return decode(*self.encode())

    def write(self, path: Path) -> Path:
        header, columns = self.encode()
        digest = hashlib.sha256(b"".join((header, *columns.values()))).hexdigest()
        encoded = {name: base64.b64encode(data).decode() for name, data in columns.items()}
        file = {"kind": "executionPlanFile", "version": 1, "digest": digest, "header": json.loads(header)}
        path.write_text(json.dumps({**file, "columns": encoded}))
        return path

    def _header(self) -> dict[str, Any]:
        sections = [{"name": name, "numOps": len(self.sections[name]), "parts": self.parts[name]} for name in SECTIONS]
        return {
            "kind": "executionPlan",
            "version": 1,
            "opKinds": self.op_kinds,
            "sections": sections,
            "buffers": [{**buffer, "sections": self._sections_of(buffer["name"])} for buffer in self.buffers],
            "arenas": self.arenas,
            "model": {"kind": "model", "numLayers": self.num_layers},
            "run": {"kind": "run", "sequenceParallelSize": 1, "dataParallelSize": 1, "dtype": "float32", "seed": 0},
            "cluster": {"kind": "cluster", "device": self.device, "rates": {"launchSeconds": 1e-06}},
            "deepspeed": {},
            "strategy": {"kind": "strategy", "segmentLayers": self.segment_layers},
            "parameters": NO_PARAMETERS,
            "headMap": {"query": [[0, 1]], "keyValue": [[0]]},
        }

    def _sections_of(self, buffer: str) -> list[str]:
        groups = ("reads", "writes", "accumulates")
        return [
            name
            for name in SECTIONS
            if any(view.buffer == buffer for op in self.sections[name] for group in groups for view in op[group])
        ]

    def _columns(self, ops: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, list[Any]]]:
        streams = [op.get("stream", KIND_STREAMS.get(op["kind"], "compute")) for op in ops]
        columns: dict[str, tuple[str, list[Any]]] = {
            "opKind": ("uint8", [self.op_kinds.index(op["kind"]) for op in ops]),
            "opStream": ("uint8", [STREAMS.index(stream) for stream in streams]),
            "opLayerSlot": ("uint8", [op["slot"] for op in ops]),
            "opTokens": ("int32", [item for op in ops for item in op.get("tokens", (0, 1))]),
            "opKv": ("int32", [item for op in ops for item in op.get("kv", (-1, -1))]),
            "opScratch": ("float64", [op.get("scratch", 0) for op in ops]),
        }
        for group in ("reads", "writes", "accumulates", "waits"):
            columns[f"op{group.capitalize()}"] = ("int32", _offsets([op[group] for op in ops]))
        for group in ("reads", "writes", "accumulates"):
            columns.update(self._access_columns(group[:-1], [view for op in ops for view in op[group]]))
        return {**columns, "wait": ("int32", [wait for op in ops for wait in op["waits"]])}

    def _access_columns(self, group: str, views: Sequence[View]) -> dict[str, tuple[str, list[Any]]]:
        ids = {buffer["name"]: buffer["id"] for buffer in self.buffers}
        return {
            f"{group}Buffer": ("int32", [ids[view.buffer] for view in views]),
            f"{group}Start": ("int32", [view.start for view in views]),
            f"{group}End": ("int32", [view.end for view in views]),
            f"{group}Bind": ("uint8", [BIND_NAMES.index(view.bind) for view in views]),
            f"{group}Index": ("int32", [view.index for view in views]),
        }


def _pack(dtype: str, values: list[Any]) -> tuple[str, int, bytes]:
    return dtype, len(values), array(TYPE_CODES[dtype], values).tobytes()


def _offsets(groups: Sequence[Sequence[Any]]) -> list[int]:
    offsets = [0]
    for group in groups:
        offsets.append(offsets[-1] + len(group))
    return offsets
