"""An execution plan as the worker sees it: frozen data, decoded from a JSON header and raw little-endian columns."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

PLAN_VERSION = 1
FIXED, SEGMENT, LAYER = 0, 1, 2
BIND_NAMES = ("fixed", "segment", "layer")
STREAMS = ("compute", "h2d", "d2h", "comm")
SECTIONS = ("embedForward", "layerForward", "lossForwardBackward", "layerBackward", "embedBackward", "stepEnd")

Pool = Literal["hbm", "host"]
Scope = Literal["section", "step"]


class PlanError(Exception):
    """A plan this worker cannot read; `hint` says the smallest change that helps."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Range(NamedTuple):
    """Half-open [start, end)."""

    start: int
    end: int


class Access(NamedTuple):
    """Rows [start, end) of one instance of a buffer; the instance is `index`, segment + index or layer + index."""

    buffer: int
    start: int
    end: int
    bind: int
    index: int


@dataclass(frozen=True, slots=True)
class Op:
    """One row of a section; `id` is its position there. `tokens` and `kv` are global token ranges."""

    id: int
    kind: str
    stream: str
    layer_slot: int
    tokens: Range
    kv: Range | None
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]
    accumulates: tuple[Access, ...]
    waits: tuple[int, ...]
    scratch_bytes: int

    @property
    def accesses(self) -> tuple[Access, ...]:
        return self.reads + self.writes + self.accumulates


@dataclass(frozen=True, slots=True)
class Part:
    """Ops [start, end) of a section: what one autograd function call executes."""

    layer_slot: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    ops: tuple[Op, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor at an address the plan owns: `instances` of it lie `instance_bytes` apart from byte `offset` on."""

    id: int
    name: str
    pool: Pool
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    instances: int
    instance_bytes: int
    offset: int
    sections: tuple[str, ...]
    scope: Scope


@dataclass(frozen=True, slots=True)
class ParameterView:
    """One weight and its place in the flat fp32 gradient region of its group; offset and numel in elements."""

    name: str
    shape: tuple[int, ...]
    offset: int
    numel: int
    trainable: bool


@dataclass(frozen=True, slots=True)
class ParameterTable:
    layer: tuple[ParameterView, ...]
    num_pre_elements: int
    head: tuple[ParameterView, ...]
    embed: tuple[ParameterView, ...]
    num_layer_elements: int
    num_head_elements: int
    num_embed_elements: int
    num_model_parameters: int


@dataclass(frozen=True, slots=True)
class HeadMap:
    """Head indices that each sequence-parallel rank owns after the all-to-all."""

    query: tuple[tuple[int, ...], ...]
    key_value: tuple[tuple[int, ...], ...]


class Stage(NamedTuple):
    """One executed part of a micro-step."""

    section: str
    part: int
    segment: int


@dataclass(frozen=True)
class Plan:
    """`model`, `run`, `cluster`, `deepspeed` and `strategy` are the header's objects, with their camelCase keys."""

    header: Mapping[str, Any] = field(repr=False)
    digest: str
    version: int
    sections: Mapping[str, Section] = field(repr=False)
    buffers: tuple[Buffer, ...] = field(repr=False)
    model: Mapping[str, Any]
    run: Mapping[str, Any]
    cluster: Mapping[str, Any]
    deepspeed: Mapping[str, Any]
    strategy: Mapping[str, Any]
    parameters: ParameterTable = field(repr=False)
    head_map: HeadMap
    arenas: Mapping[str, int]

    @property
    def num_layers(self) -> int:
        return int(self.model["numLayers"])

    @property
    def segment_layers(self) -> int:
        return int(self.strategy["segmentLayers"])

    @property
    def num_segments(self) -> int:
        return self.num_layers // self.segment_layers

    @property
    def sequence_parallel_size(self) -> int:
        return int(self.run["sequenceParallelSize"])

    @property
    def data_parallel_size(self) -> int:
        return int(self.run["dataParallelSize"])

    @property
    def world_size(self) -> int:
        return self.sequence_parallel_size * self.data_parallel_size

    def buffer(self, name: str) -> Buffer:
        """Raises KeyError when the plan has no buffer of this name."""
        for buffer in self.buffers:
            if buffer.name == name:
                return buffer
        raise KeyError(f"the plan has no buffer {name}; it has {', '.join(item.name for item in self.buffers)}")

    def instance(self, op: Op, access: Access, segment: int) -> int:
        """Which instance of its buffer an access means when the section runs for `segment`."""
        base = (0, segment, segment * self.segment_layers + op.layer_slot)[access.bind]
        return base + access.index

    def access_text(self, access: Access) -> str:
        """As the planner prints it: `x#segment+1[0:32)`."""
        bind, index = BIND_NAMES[access.bind], access.index
        instance = (f"#{index}" if index else "") if access.bind == FIXED else f"#{bind}" + (f"+{index}" if index else "")
        return f"{self.buffers[access.buffer].name}{instance}[{access.start}:{access.end})"

    def timeline(self) -> tuple[Stage, ...]:
        """The parts of one micro-step in the order the engine runs them; stepEnd holds only external work."""
        stages: list[Stage] = []
        for name in SECTIONS[:-1]:
            parts = range(len(self.sections[name].parts))
            segments = range(self.num_segments) if name.startswith("layer") else range(1)
            for segment in reversed(segments) if name == "layerBackward" else segments:
                stages.extend(Stage(name, part, segment) for part in parts)
        return tuple(stages)


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
        raise PlanError(f"{path} has plan file version {document.get('version')}, this worker reads {PLAN_VERSION}", hint)
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
    """A plan from its wire frames: the header and the columns by name. Raises PlanError."""
    from fpdt.plan_decode import decode_plan

    return decode_plan(header_bytes, columns)
