"""The model of a plan on one rank, sharded while it is built where ZeRO shards weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import deepspeed
import torch
from deepspeed.utils import groups
from torch import nn

from fpdt.models.build import DTYPES, Shard
from fpdt.models.plan_model import plan_model
from fpdt.plan import Plan
from fpdt.run.rank_disk import with_folders
from fpdt.run.weights_disk import WeightsOnDisk

NO_FOLDERS: Mapping[str, Path] = MappingProxyType({})


class _ShardInit(deepspeed.zero.Init):  # type: ignore[misc]
    """Shards what every rank has made alike; zero.Init itself broadcasts every whole weight from rank 0."""

    def _zero_init_param(self, param: Any) -> None:
        self._convert_to_deepspeed_param(param)
        param.partition()


def rank_model(
    plan: Plan, weights: Path | None, device: torch.device, folders: Mapping[str, Path] = NO_FOLDERS
) -> nn.Module:
    """The plan's model, unit by unit; see plan_model.

    Under ZeRO-3 the rank never holds more than its shards and the largest unit, in other stages one copy. Every rank
    reads, or makes, every weight by itself: nothing is sent. To be called when DeepSpeed knows the process group, see
    engine.start_deepspeed. `folders`: the rank's on a disk, see rank_disk. Raises WeightsError for a folder that is
    not the model's.
    """
    return plan_model(plan, weights, shard=_shard(plan, device, folders), device=device)


def _shard(plan: Plan, device: torch.device, folders: Mapping[str, Path]) -> Shard | None:
    if int(plan.run["zeroStage"]) < 3:
        return None
    # The batch size is of no account here, but must agree with itself.
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {**plan.deepspeed["zero_optimization"], "memory_efficient_linear": False},
        **{key: plan.deepspeed[key] for key in ("bf16", "fp16", "aio") if key in plan.deepspeed},
    }
    config = with_folders(config, folders)
    group = _secondary_group(plan)
    on_disk = WeightsOnDisk(config, DTYPES[plan.run["dtype"]], device) if "offload_param" in folders else None

    def shard(model: nn.Module, path: str) -> None:
        module = model.get_submodule(path)
        _ShardInit(module=module, config_dict_or_path=config, zero_param_parallel_group=group, param_swapper=on_disk)

    return shard


def _secondary_group(plan: Plan) -> Any:
    """The ranks that hold all weights once more among them (hpZ), made once: zero.Init would make it for every unit."""
    size = int(plan.deepspeed["zero_optimization"].get("zero_hpz_partition_size", 1))
    if size > 1:
        groups._create_zero_param_parallel_group(size)
    return groups._get_zero_param_intra_parallel_group()
