"""The nouns of an execution plan that travel as JSON: strict models, which the rest of the worker uses as they are.

camelCase in JSON, snake_case in Python. Unknown keys are refused, except in the specs (model and run), of which the
worker reads only what is named here.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fpdt.plan.model_code import ModelCode
from fpdt.plan.part import RECORD, Count, Part, Positive, Spec

DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int64": 8}
FILE_ALIGNMENT_BYTES = 4096

Dtype = Literal["float64", "float32", "bfloat16", "float16", "int64"]
TableName = Literal["tokenIds", "positions", "labels", "weights"]
Module = Literal["embed", "layer", "head", "end"]
Direction = Literal["forward", "backward"]


class ModelSpec(Spec):
    num_layers: Positive
    code: ModelCode


class RunSpec(Spec):
    sequence_parallel_size: Positive
    data_parallel_size: Positive
    dtype: Dtype
    packing: bool = False


class Pool(Part):
    """`bytes` is the size of its arena, or file; 0 where the plan uses none of it."""

    name: str
    kind: Literal["device", "pinned", "file"]
    bytes: Count


class Link(Part):
    """Copies between two pools are queued on one stream."""

    from_: str = Field(alias="from")
    to: str
    stream: str


class FusedKernels(Spec):
    """Kernels beside attention. One that this worker does not know is a feature of the plan that it does not know.

    Blocks of those that work block by block take `block_bytes`, or a row.
    """

    loss: str = "plain"
    merge: str = "plain"
    norm: str = "plain"
    rope: str = "plain"
    elementwise: str = "plain"
    weight_gradient: str = "plain"
    block_bytes: Positive


PLAIN = FusedKernels(block_bytes=1)


class Kernels(Part):
    attn: str
    attn_bwd: str
    fused: FusedKernels = PLAIN


class Mask(Part):
    """Which keys a query sees; `window` in tokens."""

    kind: Literal["full", "causal", "window"]
    window: Positive | None = None


class HeadGroup(Part):
    """Group `group` of the groups of equal size that a rank's heads are cut into.

    Without it an exchange is of all groups: of one view with all heads, and a head-sharded one for each.
    """

    groups: Positive
    group: Count | None = None


class Attribute(Part):
    """What an op carries beside its views. `tiles`: row tiles that a token-wise op works in, one after the other.

    `heads`: what of the heads the op works on; None: all.
    """

    mask: Mask | None = None
    tiles: Positive = 1
    heads: HeadGroup | None = None


class Buffer(Part):
    """A tensor at an address the plan owns: `instances` of it lie `instance_bytes` apart from byte `offset` on.

    Strides are in elements. With `block_rows` they hold inside a block of so many rows, which lies in memory as
    [heads, rows], and a view is one block. `call`: dead when the call ends; `step`: alive from its first to its last
    use in a micro-step.
    """

    id: Count
    name: str
    pool: str
    dtype: Dtype
    shape: tuple[Positive, ...]
    strides: tuple[Count, ...]
    block_rows: Positive | None = None
    instances: Positive
    instance_bytes: Count
    offset: Count
    scope: Literal["call", "step"]

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of the values of a row, whatever the stride between rows."""
        return math.prod(self.shape[1:]) * DTYPE_BYTES[self.dtype]

    @property
    def pitch_bytes(self) -> int:
        """By which a view that begins n rows later begins later, over n."""
        return self.row_bytes if self.block_rows else self.strides[0] * DTYPE_BYTES[self.dtype]

    @property
    def span_bytes(self) -> int:
        """From the first to past the last byte of an instance."""
        if self.block_rows is not None:
            return self.rows * self.row_bytes
        last = sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))
        return (last + 1) * DTYPE_BYTES[self.dtype]


class Table(Part):
    """Host data of this rank for a micro-step, and the buffer that loadBatch puts it in."""

    name: TableName
    dtype: Literal["int64", "float32"]
    capacity: Positive
    buffer: Count


@dataclass(frozen=True, config=RECORD)
class ParameterView:
    """One weight and its place, if it trains, in the flat fp32 gradient region of its group, in elements."""

    name: str
    shape: tuple[Count, ...]
    offset: Count
    numel: Count
    trainable: bool


@dataclass(frozen=True, config=RECORD)
class LayerParameters:
    """Weights of a decoder layer, relative to its module, and the elements of its gradient region."""

    weights: tuple[ParameterView, ...]
    num_elements: Count


@dataclass(frozen=True, config=RECORD)
class ParameterTable:
    """Weights by group, in the order of use: of layers by their class of code; the norm's are first in `head`."""

    layers: tuple[LayerParameters, ...]
    head: tuple[ParameterView, ...]
    embed: tuple[ParameterView, ...]
    num_head_norm_elements: Count
    num_head_elements: Count
    num_embed_elements: Count
    num_model_parameters: Count
    num_trained_parameters: Count


@dataclass(frozen=True, config=RECORD)
class HeadMap:
    """Per sequence parallel rank the heads of its head-sharded views, in order; -1 is a padded head."""

    query: tuple[tuple[int, ...], ...]
    key_value: tuple[tuple[int, ...], ...]


class Layout(Part):
    """`sequence_groups`: global ranks that share a sequence, in the order of their tokens; one list a replica."""

    sequence_groups: tuple[tuple[Count, ...], ...]
    heads: HeadMap


class Role(Part):
    """What the values behind a parameter are; the planner's verifier reads it, the worker does not."""

    value: str
    layer: int


class Param(Part):
    """A parameter of a section: a call binds it to an instance."""

    name: str
    entry: Role | None = None
    exit: Role | None = None


class Call(Part):
    """One run of a section. `waits[s]`: bit t is set where stream s waits for what was queued before on stream t."""

    section: str
    args: tuple[Count, ...]
    layer: Count | None = None
    owner: Literal["plan", "zero"]
    waits: tuple[Count, ...]


class Turn(Part):
    """What one autograd node runs; `end` is the engine's step."""

    module: Module
    layer: Count | None = None
    direction: Direction
    calls: tuple[Call, ...]

    @property
    def name(self) -> str:
        return turn_name(self.module, self.direction, self.layer)


def turn_name(module: str, direction: str, layer: int | None) -> str:
    """`layer 3 backward`, `head forward`, `end`."""
    if module == "end":
        return module
    return " ".join([module, *([] if layer is None else [str(layer)]), direction])


class Program(Part):
    """One micro-step in execution order, then `end`; of one that evaluates, forward alone."""

    turns: tuple[Turn, ...]


class Programs(Part):
    """Over the same arenas, in which nothing lives on from one to the other."""

    train: Program
    evaluate: Program | None = None
