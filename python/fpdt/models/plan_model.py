"""The model of a plan, as every rank and every reference of a run starts from it, and the writer of its folder."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from fpdt.models.adapters import AdapterWriter
from fpdt.models.build import DTYPES, Attention, Shard, build_model
from fpdt.models.export import FolderWriter, ModelWriter
from fpdt.models.training import prepare
from fpdt.models.weights import WeightFolder
from fpdt.plan import Plan


def plan_model(
    plan: Plan,
    weights: Path | None,
    *,
    with_adapters: bool = True,
    shard: Shard | None = None,
    device: torch.device | str = "cpu",
    attention: Attention = "eager",
    with_buffers: bool = False,
) -> nn.Module:
    """In the run's dtype, with the weights of a folder, or those of the plan's seed where none is given.

    What the plan does not train is frozen. The other options are those of build_model. Raises WeightsError for a folder
    that is not the model's.
    """
    seed, dtype = int(plan.run["seed"]), DTYPES[plan.run["dtype"]]
    with nullcontext() if weights is None else WeightFolder(weights) as folder:
        model = build_model(
            plan.model["hfConfig"],
            seed,
            dtype,
            layers=plan.code.layers,
            folder=folder,
            shard=shard,
            device=device,
            attention=attention,
            with_buffers=with_buffers,
        )
    lora = plan.model.get("lora") if with_adapters else None
    prepare(model, plan, lora, seed, dtype, shard=shard, device=device)
    return model


def plan_writer(plan: Plan, target: Path, weights: Path | None, *, with_adapters: bool = True) -> FolderWriter:
    """For the folder `target`: of the adapters, where the plan has some, or else of the model.

    `weights`: the folder that the model started from. Raises WeightsError for a folder that cannot be written.
    """
    table, dtype = plan.parameters, str(plan.run["dtype"])
    size = DTYPES[dtype].itemsize
    if with_adapters and plan.model.get("lora") is not None:
        return AdapterWriter(target, size * table.num_trained_parameters, weights)
    return ModelWriter(target, size * table.num_model_parameters, plan.model["hfConfig"], dtype, weights)
