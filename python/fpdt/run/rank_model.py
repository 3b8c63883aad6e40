"""The model of a plan on one rank, sharded while it is built where ZeRO shards weights."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import nn

from fpdt.models.build import DTYPES, Shard, build_model
from fpdt.models.training import prepare
from fpdt.models.weights import WeightFolder
from fpdt.plan import Plan


class _ShardInit(deepspeed.zero.Init):  # type: ignore[misc]
    """Shards what every rank has made alike; zero.Init itself broadcasts every whole weight from rank 0."""

    def _zero_init_param(self, param: Any) -> None:
        self._convert_to_deepspeed_param(param)
        param.partition()


def rank_model(plan: Plan, weights: Path | None, device: torch.device) -> nn.Module:
    """Unit by unit, with the weights of a folder, or those of the plan's seed where none is given.

    Under ZeRO-3 the rank never holds more than its shards and the largest unit, in other stages one copy. Every rank
    reads, or makes, every weight by itself: nothing is sent. To be called when DeepSpeed knows the process group, see
    engine.start_deepspeed. Raises WeightsError for a folder that is not the model's.
    """
    seed, dtype, shard = int(plan.run["seed"]), DTYPES[plan.run["dtype"]], _shard(plan)
    with nullcontext() if weights is None else WeightFolder(weights) as folder:
        model = build_model(
            plan.model["hfConfig"],
            seed,
            dtype,
            layers=plan.code.layers,
            folder=folder,
            shard=shard,
            device=device,
        )
    prepare(model, plan, plan.model.get("lora"), seed, dtype, shard=shard, device=device)
    return model


def _shard(plan: Plan) -> Shard | None:
    if int(plan.run["zeroStage"]) < 3:
        return None
    # The batch size is of no account here, but must agree with itself.
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {**plan.deepspeed["zero_optimization"], "memory_efficient_linear": False},
        **{key: plan.deepspeed[key] for key in ("bf16", "fp16") if key in plan.deepspeed},
    }

    def shard(model: nn.Module, path: str) -> None:
        _ShardInit(module=model.get_submodule(path), config_dict_or_path=config)

    return shard
