"""The nouns of an execution plan as the worker sees it: frozen data, no behaviour beyond look-ups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

PLAN_VERSION = 1
FIXED, SEGMENT, LAYER = 0, 1, 2
BIND_NAMES = ("fixed", "segment", "layer")
STREAMS = ("compute", "h2d", "d2h", "comm")
SECTIONS = ("embedForward", "layerForward", "lossForwardBackward", "layerBackward", "embedBackward", "stepEnd")

DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int64": 8}

Pool = Literal["hbm", "host"]
Scope = Literal["section", "step"]


class Range(NamedTuple):
    """Half-open [start, end)."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Access:
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

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * DTYPE_BYTES[self.dtype]


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
        index = str(access.index) if access.index else ""
        if access.bind == FIXED:
            instance = f"#{index}" if index else ""
        else:
            instance = f"#{BIND_NAMES[access.bind]}" + (f"+{index}" if index else "")
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
