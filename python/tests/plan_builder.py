"""Writes small plans by hand, through the real encoding: header, prose, deflated columns, digest and all."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fpdt.plan import DTYPE_BYTES, OP_KINDS, Frames, Plan, decode
from fpdt.plan.columns import _DTYPES as COLUMN_DTYPES
from fpdt.plan.op_kinds import OpKind

ALIGNMENT = 512
FILE_ALIGNMENT = 4096
STREAMS = ["compute", "comm", "h2d", "d2h", "read", "write"]
LINKS = [("host", "hbm", "h2d"), ("hbm", "host", "d2h"), ("disk", "host", "read"), ("host", "disk", "write")]
PROSE = {"cluster": {"kind": "cluster"}, "memory": {}, "prediction": {}}
EMIT = "emit"
NO_PARAMETERS: Mapping[str, Any] = {
    "layers": [
        {
            "weights": [{"name": "weight", "shape": [2, 3], "offset": 0, "numel": 6, "trainable": True}],
            "numElements": 6,
        }
    ],
    "head": [],
    "embed": [],
    "numHeadNormElements": 0,
    "numHeadElements": 0,
    "numEmbedElements": 0,
    "numModelParameters": 6,
    "numTrainedParameters": 6,
}
NO_CODE: Mapping[str, Any] = {"instructions": [], "widths": {}}


@dataclass(frozen=True)
class View:
    """An access by buffer name; `param` is the name of one of the section's parameters."""

    buffer: str
    start: int
    end: int
    param: str | None = None
    index: int = 0


@dataclass
class PlanBuilder:
    """Buffers get ascending addresses unless `offset` says otherwise; ops go to the last section begun.

    Turns of `num_layers` layers are there from the start; `call` adds to one. Backward turns that emit no gradients get
    a call of a section that does, which reads the buffer `emitted`.
    """

    num_layers: int = 1
    device: str = "cpu"
    features: list[str] = field(default_factory=list)
    buffers: list[dict[str, Any]] = field(default_factory=list)
    attributes: list[dict[str, Any]] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    sections: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    params: dict[str, tuple[str, ...]] = field(default_factory=dict)
    calls: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pools: dict[str, int] = field(default_factory=lambda: {"hbm": 0, "host": 0, "disk": 0})
    kernels: dict[str, str] = field(default_factory=lambda: {"attn": "cpu_flash", "attnBwd": "cpu_flash"})
    overrides: dict[str, Any] = field(default_factory=dict)
    """Fields of the header in place of the small ones that tests of single ops do with."""
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
        scope: str = "call",
        offset: int | None = None,
        alignment: int | None = None,
    ) -> PlanBuilder:
        shape = [rows, *inner]
        unit = alignment or (FILE_ALIGNMENT if pool == "disk" else ALIGNMENT)
        instance_bytes = math.ceil(math.prod(shape) * DTYPE_BYTES[dtype] / unit) * unit
        start = math.ceil(self.pools[pool] / unit) * unit if offset is None else offset
        self.pools[pool] = max(self.pools[pool], start + instances * instance_bytes)
        fields = {"name": name, "pool": pool, "dtype": dtype, "shape": shape, "instances": instances, "scope": scope}
        strides = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
        placed = {"id": len(self.buffers), "strides": strides, "instanceBytes": instance_bytes, "offset": start}
        self.buffers.append({**fields, **placed})
        return self

    def table(self, name: str, rows: int) -> PlanBuilder:
        """A table with a buffer of its name."""
        self.tables.append({"name": name, "dtype": "int64", "capacity": rows, "buffer": len(self.buffers)})
        return self.buffer(name, rows, dtype="int64", scope="step")

    def attribute(self, **fields: Any) -> int:
        """The number of a new attribute."""
        self.attributes.append(fields)
        return len(self.attributes) - 1

    def section(self, name: str, *params: str) -> PlanBuilder:
        self.current = name
        self.sections[name], self.params[name] = [], params
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
        """`more`: tokens, kv, attribute, scratch, stream."""
        groups = {"reads": list(reads), "writes": list(writes), "accumulates": list(accumulates)}
        self.sections[self.current].append({"kind": kind, "waits": list(waits), **groups, **more})
        return self

    def call(
        self,
        turn: str,
        section: str | None = None,
        args: Sequence[int] = (),
        *,
        layer: int | None = None,
        owner: str = "plan",
        waits: Mapping[str, Iterable[str]] | None = None,
    ) -> PlanBuilder:
        """A call of the last section begun, or of another. `waits`: by stream, the streams its entry mask names."""
        masks = {stream: sum(1 << STREAMS.index(name) for name in names) for stream, names in (waits or {}).items()}
        made: dict[str, Any] = {"section": section or self.current, "args": list(args), "owner": owner}
        made["waits"] = [masks.get(stream, 0) for stream in STREAMS]
        self.calls.setdefault(turn, []).append(made if layer is None else {**made, "layer": layer})
        return self

    def encode(self) -> Frames:
        self._complete()
        ops = [op for name in self.sections for op in self.sections[name]]
        columns = {name: np.array(values, dtype=f"<{_CODES[name]}") for name, values in self._columns(ops).items()}
        described = [{"name": n, "dtype": COLUMN_DTYPES[n], "length": len(values)} for n, values in columns.items()]
        header = json.dumps({**self._header(), "columns": described}).encode()
        return Frames(header, json.dumps(PROSE).encode(), {n: zlib.compress(v.tobytes()) for n, v in columns.items()})

    def build(self) -> Plan:
        return decode(*self.encode())

    def write(self, path: Path) -> Path:
        return write_plan(self.encode(), path)

    def _complete(self) -> None:
        for turn in self._turn_names():
            mine = self.calls.setdefault(turn, [])
            emits = any(op["kind"] == "emitGrads" for call in mine for op in self.sections[call["section"]])
            if turn.endswith("backward") and not emits:
                if EMIT not in self.sections:
                    last, self.current = self.current, self.current
                    self.buffer("emitted", 1, scope="step").section(EMIT).op("emitGrads", [View("emitted", 0, 1)])
                    self.current = last
                self.call(turn, EMIT)
        unknown = set(self.calls) - set(self._turn_names())
        assert not unknown, f"no such turns: {unknown}"

    def _turn_names(self) -> list[str]:
        layers = [f"layer {layer}" for layer in range(self.num_layers)]
        forth = [f"{name} forward" for name in ("embed", *layers, "head")]
        return [*forth, *(f"{name} backward" for name in ("head", *reversed(layers), "embed")), "end"]

    def _turn(self, name: str) -> dict[str, Any]:
        words = name.split()
        turn: dict[str, Any] = {"module": words[0], "direction": words[-1], "calls": self.calls[name]}
        if name == "end":
            turn["direction"] = "forward"
        return {**turn, "layer": int(words[1])} if len(words) == 3 else turn

    def _header(self) -> dict[str, Any]:
        sections = [
            {"name": name, "params": [{"name": param} for param in self.params[name]], "numOps": len(ops)}
            for name, ops in self.sections.items()
        ]
        kinds = {"hbm": "device", "host": "pinned", "disk": "file"}
        turns = [self._turn(name) for name in self._turn_names()]
        run = {"kind": "run", "sequenceParallelSize": 1, "dataParallelSize": 1, "dtype": "float32", "seed": 0}
        return {
            "kind": "executionPlan",
            "version": 2,
            "features": self.features,
            "device": self.device,
            "numRanks": 1,
            "ranksPerNode": 1,
            "model": {"kind": "model", "numLayers": self.num_layers, "code": no_code(self.num_layers)},
            "run": {**run, "gradientAccumulationSteps": 1, "learningRate": 1e-06},
            "deepspeed": {},
            "strategy": {"kind": "strategy"},
            "parameters": NO_PARAMETERS,
            "layout": {"sequenceGroups": [[0]], "heads": {"query": [[0, 1]], "keyValue": [[0]]}},
            "pools": [{"name": name, "kind": kinds[name], "bytes": size} for name, size in self.pools.items()],
            "links": [{"from": source, "to": target, "stream": stream} for source, target, stream in LINKS],
            "streams": STREAMS,
            "kernels": self.kernels,
            "collectiveTimeoutSeconds": 1800,
            "opKinds": [op_kind_row(kind) for kind in OP_KINDS.values()],
            "buffers": self.buffers,
            "attributes": self.attributes,
            "tables": self.tables,
            "sections": sections,
            "programs": {"train": {"turns": turns}},
            **self.overrides,
        }

    def _columns(self, ops: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
        views = [[*op["reads"], *op["writes"], *op["accumulates"]] for op in ops]
        owners = [name for name in self.sections for _ in self.sections[name]]
        named = [[self._access(view, owner) for view in mine] for mine, owner in zip(views, owners, strict=True)]
        accesses = list(dict.fromkeys(access for mine in named for access in mine))
        numbers = {access: number for number, access in enumerate(accesses)}
        return {
            "opKind": [list(OP_KINDS).index(op["kind"]) for op in ops],
            "opStream": [STREAMS.index(self._stream(op)) for op in ops],
            "opTokens": [item for op in ops for item in op.get("tokens", (0, 1))],
            "opKv": [item for op in ops for item in op.get("kv", (-1, -1))],
            "opAttribute": [op.get("attribute", -1) for op in ops],
            "opScratch": [op.get("scratch", 0) for op in ops],
            "opViews": _offsets(views),
            "opNumReads": [len(op["reads"]) for op in ops],
            "opNumWrites": [len(op["writes"]) for op in ops],
            "view": [numbers[access] for mine in named for access in mine],
            "opWaits": _offsets([op["waits"] for op in ops]),
            "wait": [wait for op in ops for wait in op["waits"]],
            "accessBuffer": [access[0] for access in accesses],
            "accessStart": [access[1] for access in accesses],
            "accessEnd": [access[2] for access in accesses],
            "accessParam": [access[3] for access in accesses],
            "accessIndex": [access[4] for access in accesses],
        }

    def _access(self, view: View, section: str) -> tuple[int, int, int, int, int]:
        buffer = next(buffer["id"] for buffer in self.buffers if buffer["name"] == view.buffer)
        param = -1 if view.param is None else self.params[section].index(view.param)
        return buffer, view.start, view.end, param, view.index

    def _stream(self, op: Mapping[str, Any]) -> str:
        stream = op.get("stream", OP_KINDS[op["kind"]].stream)
        if stream != "link":
            return str(stream)
        pools = {buffer["name"]: buffer["pool"] for buffer in self.buffers}
        # A copy without views is on a link all the same; tests of orders have such.
        pair = tuple(pools[op[group][0].buffer] for group in ("reads", "writes")) if op["reads"] else ("host", "hbm")
        return next(stream for *link, stream in LINKS if tuple(link) == pair)


_CODES = {name: np.dtype(dtype).str[1:] for name, dtype in COLUMN_DTYPES.items()}


def write_plan(frames: Frames, path: Path) -> Path:
    """A plan.json."""
    digest = hashlib.sha256(frames.header + b"".join(map(zlib.decompress, frames.columns.values()))).hexdigest()
    encoded = {name: base64.b64encode(data).decode() for name, data in frames.columns.items()}
    texts = {"header": frames.header.decode(), "prose": frames.prose.decode()}
    file = {"kind": "executionPlanFile", "version": 2, "digest": digest, **texts, "columns": encoded}
    path.write_text(json.dumps(file))
    return path


def no_code(num_layers: int) -> dict[str, Any]:
    """The code of a model that computes nothing; tests of single ops have handlers of their own."""
    layer = dict.fromkeys(("pre", "preQ", "preKv", "preBwd", "post", "postBwd", "postKeep", "postBwdKept"), NO_CODE)
    return {
        "layers": "layers",
        "classes": [{"attention": {"scale": 1.0, "softcap": None}, **layer}],
        "classOf": [0] * num_layers,
        **dict.fromkeys(("embed", "embedBwd", "head", "headBwd"), NO_CODE),
        "lmHead": {"module": "lm_head", "weights": [], "scale": 1.0, "softcap": None},
    }


def op_kind_row(kind: OpKind) -> dict[str, Any]:
    """A row of the plan's table of op kinds."""
    groups = {"reads": kind.reads, "writes": kind.writes, "accumulates": kind.accumulates}
    views = {name: views if views == "many" else list(views) for name, views in groups.items()}
    return {"name": kind.name, "stream": kind.stream, **views, "external": kind.external}


def _offsets(groups: Sequence[Sequence[Any]]) -> list[int]:
    offsets = [0]
    for group in groups:
        offsets.append(offsets[-1] + len(group))
    return offsets
