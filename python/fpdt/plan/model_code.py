"""What a model computes, as the planner compiled it: instructions of every op, with a last use for every value."""

from __future__ import annotations

from typing import Literal

from fpdt.plan.part import Count, Part, Positive

InstructionName = Literal[
    "linear",
    "rmsnorm",
    "layernorm",
    "angles",
    "rope",
    "activation",
    "multiply",
    "add",
    "scale",
    "slice",
    "lookup",
    "linearBwd",
    "rmsnormBwd",
    "layernormBwd",
    "ropeBwd",
    "activationBwd",
    "multiplyBwd",
    "sliceBwd",
    "lookupBwd",
    "cast",
    "store",
    "load",
    "addTo",
]


class WeightUse(Part):
    """A weight by its name in the layer or the model; `part`: of its outputs, where not all are used.

    A `frozen` one does not train.
    """

    name: str
    shape: tuple[Positive, ...]
    part: tuple[Count, Positive] | None = None
    frozen: Literal[True] | None = None


class Instruction(Part):
    """Reads values or views and makes `writes`, or changes `into`; values in `frees` are read by nothing after it."""

    op: InstructionName
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    into: str | None = None
    frees: tuple[str, ...]
    weights: tuple[WeightUse, ...]
    attributes: dict[str, float | str | bool]


class Code(Part):
    """What an op computes; `widths` of its values and views, in elements of a row."""

    instructions: tuple[Instruction, ...]
    widths: dict[str, Count]


class AttentionNumbers(Part):
    scale: float
    softcap: float | None


class LayerCode(Part):
    attention: AttentionNumbers
    pre: Code
    pre_q: Code
    pre_kv: Code
    pre_bwd: Code
    post: Code
    post_bwd: Code
    post_keep: Code
    post_bwd_kept: Code


class LmHead(Part):
    """Logits are scale * (y weight + bias), z, or softcap * tanh(z / softcap); without weights it is tied."""

    module: str
    weights: tuple[WeightUse, ...]
    scale: float
    softcap: float | None


class ModelCode(Part):
    """Everything of a model that its family decides. `class_of`: which of `classes` each layer runs."""

    layers: str
    classes: tuple[LayerCode, ...]
    class_of: tuple[Count, ...]
    embed: Code
    embed_bwd: Code
    head: Code
    head_bwd: Code
    lm_head: LmHead
