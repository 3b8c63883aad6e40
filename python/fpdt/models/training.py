"""What of a model trains: what the plan says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from fpdt.models.adapters import add_adapters
from fpdt.models.build import Shard
from fpdt.plan.data import ParameterTable, ParameterView
from fpdt.plan.model_code import ModelCode


class TrainedModel(Protocol):
    """What of a Plan says it."""

    @property
    def code(self) -> ModelCode: ...

    @property
    def parameters(self) -> ParameterTable: ...


def prepare(
    model: nn.Module,
    plan: TrainedModel,
    lora: Mapping[str, Any] | None,
    seed: int,
    dtype: torch.dtype,
    *,
    shard: Shard | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Puts adapters beside the plan's modules, where it has some, and freezes what does not train."""
    if lora is not None:
        add_adapters(model, lora, seed, dtype, shard=shard, device=device)
    freeze(model, plan)


def freeze(model: nn.Module, plan: TrainedModel) -> None:
    """Turns gradients off for the plan's frozen weights. Weights that the model lacks are for the bindings to name."""
    frozen = {name for name, row in named_rows(plan) if not row.trainable}
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)


def named_rows(plan: TrainedModel) -> Iterator[tuple[str, ParameterView]]:
    """Every weight of the plan's table by its name in the model, a tied one under the embedding's."""
    table = plan.parameters
    for number, kind in enumerate(plan.code.class_of):
        for row in table.layers[kind].weights:
            yield f"{plan.code.layers}.{number}.{row.name}", row
    for row in (*table.head, *table.embed):
        yield row.name, row
