"""Weights and their places in a flat fp32 gradient region.

The plan gives every weight of a group an offset; weight gradients are summed there over chunks, in fp32, and cast once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fpdt.errors import FpdtError
from fpdt.plan.data import ParameterView


class ParameterError(FpdtError, ValueError):
    """The plan's parameter table does not describe this model."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "plan again, with this model's config.json and what of it trains")


@dataclass(frozen=True)
class WeightSlice:
    """A trainable weight and its elements [offset, offset + numel) of a region."""

    name: str
    parameter: nn.Parameter
    shape: tuple[int, ...]
    offset: int
    numel: int

    def view(self, region: Tensor) -> Tensor:
        """Its gradient, shaped like the weight: a view of the flat region."""
        return region[self.offset : self.offset + self.numel].view(self.shape)


def bind_weights(module: nn.Module, rows: Iterable[ParameterView], first: int = 0) -> tuple[WeightSlice, ...]:
    """The rows that train as slices of a region that starts at element `first` of the group's.

    Raises ParameterError when the module lacks a name, has another shape, or trains other weights than the plan.
    """
    bound = [(row, _parameter(module, row)) for row in rows]
    return tuple(
        WeightSlice(row.name, parameter, tuple(row.shape), row.offset - first, row.numel)
        for row, parameter in bound
        if row.trainable
    )


def accumulate(slices: Sequence[WeightSlice], region: Tensor, grads: Sequence[Tensor]) -> None:
    """Adds gradients, in any floating dtype, into the fp32 region."""
    for part, grad in zip(slices, grads, strict=True):
        part.view(region).add_(grad)


def cast_gradients(slices: Sequence[WeightSlice], region: Tensor, factor: float = 1.0) -> list[Tensor]:
    """New tensors in each weight's dtype; `factor` is applied in fp32, before the cast."""
    return [_cast(part.view(region), part.parameter.dtype, factor) for part in slices]


def _cast(grad: Tensor, dtype: torch.dtype, factor: float) -> Tensor:
    if factor != 1.0:
        return (grad * factor).to(dtype)
    return grad.to(dtype, copy=True)


def _parameter(module: nn.Module, row: ParameterView) -> nn.Parameter:
    try:
        parameter = module.get_parameter(row.name)
    except AttributeError as error:
        names = ", ".join(name for name, _ in module.named_parameters())
        raise ParameterError(f"the plan names a weight '{row.name}' that the module lacks; it has {names}") from error
    # ZeRO-3 leaves an empty tensor in place of a partitioned weight and keeps the shape beside it.
    shape = tuple(getattr(parameter, "ds_shape", parameter.shape))
    if shape != tuple(row.shape):
        raise ParameterError(f"weight '{row.name}' has shape {shape}, the plan says {tuple(row.shape)}")
    if parameter.requires_grad != row.trainable:
        where, other = ("model", "plan") if parameter.requires_grad else ("plan", "model")
        raise ParameterError(f"weight '{row.name}' trains in the {where}, in the {other} it is frozen; plan anew")
    return parameter
