"""An instruction of a plan's code, linked to the weights and the module that it is bound to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fpdt.plan.model_code import Instruction
from fpdt.plan.nouns import FusedKernels
from fpdt.run.parameters import WeightSlice

Env = dict[str, Tensor]
"""Values and views by name, and `wgrad`, the region that weight gradients are added to."""
Work = Callable[[Env], None]


@dataclass(frozen=True)
class Rotary:
    """Rotary embedding: angle = position * inverse_frequency, cos and sin times `scaling`.

    `inverse_frequency` is fp32 [dims / 2] and was never rounded to the model dtype.
    """

    inverse_frequency: Tensor
    scaling: float


@dataclass(frozen=True)
class Weight:
    """A weight, or the part of its outputs that an instruction uses; `slice` None: it does not train."""

    parameter: nn.Parameter
    slice: WeightSlice | None
    part: tuple[int, int] | None
    transposed: bool

    @property
    def value(self) -> Tensor:
        return self._cut(self.parameter)

    def gradient(self, region: Tensor) -> Tensor:
        assert self.slice is not None
        return self._cut(self.slice.view(region))

    def _cut(self, whole: Tensor) -> Tensor:
        if self.part is None:
            return whole
        start, end = self.part
        return whole[:, start:end] if self.transposed and whole.dim() == 2 else whole[start:end]


@dataclass(frozen=True)
class Link:
    """An instruction with what it is bound to."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    into: str | None
    weights: tuple[Weight, ...]
    attributes: Mapping[str, Any]
    rotary: Rotary | None
    dtype: torch.dtype
    fused: FusedKernels

    @classmethod
    def of(
        cls,
        one: Instruction,
        weights: tuple[Weight, ...],
        dtype: torch.dtype,
        fused: FusedKernels,
        rotary: Rotary | None = None,
    ) -> Link:
        return cls(one.reads, one.writes, one.into, weights, one.attributes, rotary, dtype, fused)

    def skips(self, number: int) -> bool:
        return bool(self.attributes.get(f"skip{number}", False))

    def taken(self, number: int) -> str | None:
        """Of which value the memory becomes that of a result; None: the result has memory of its own."""
        place = self.attributes.get(f"reuse{number}")
        return None if place is None or self.fused.elementwise == "plain" else self.reads[int(place)]
