"""The user's own DeepSpeed engine: found, and held against the plan, whose memory depends on its settings."""

from __future__ import annotations

import gc
from typing import Any

import torch.distributed as dist
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.zero.config import get_zero_config
from torch import nn

from fpdt.models.build import DTYPES
from fpdt.plan import Plan
from fpdt.run.engine import ConfigError
from fpdt.run.weights_disk import share_dtype

SETTINGS = ("reduce_bucket_size", "contiguous_gradients", "reduce_scatter", "overlap_comm")
STAGE_3 = (
    *("sub_group_size", "max_live_parameters", "param_persistence_threshold", "model_persistence_threshold"),
    *("prefetch_bucket_size", "allgather_sequential", "use_all_reduce_for_fetch_params"),
)
"""What the memory plan depends on (src/memory/zeroSettings.ts), by DeepSpeed's attributes; offloading beside it."""
ON_DISK = ("buffer_count", "buffer_size", "max_in_cpu")
"""Of a section that offloads to a disk, as far as it has them."""
AS_PLANNED = "give deepspeed.initialize the ds_config that the plan was made with, or plan again with this one"


def engine_around(model: nn.Module) -> Any:
    """The engine that has the model, or a model around it; None where there is none.

    DeepSpeed leaves no way from a model to its engine. Asked at most three times in a model's life.
    """
    engines: list[Any] = [one for one in gc.get_objects() if issubclass(type(one), DeepSpeedEngine)]
    return next((one for one in engines if any(module is model for module in one.module.modules())), None)


def check_engine(engine: Any, model: nn.Module, plan: Plan) -> None:
    """Raises ConfigError where the engine is not the one that was planned for."""
    if engine.dp_world_size != dist.get_world_size():
        raise ConfigError(
            f"DeepSpeed takes means over {engine.dp_world_size} ranks, and there are {dist.get_world_size()}",
            "give deepspeed.initialize neither an mpu nor a sequence_parallel_size: the plan has its own",
        )
    _check_zero(engine, plan)
    dtype = DTYPES[plan.run["dtype"]]
    for name, weight in model.named_parameters():
        found = share_dtype(weight)
        if found != dtype:
            raise ConfigError(
                f"weight '{name}' is {found} in the engine, the plan is for {dtype}",
                "give the ds_config and zero.Init the plan's dtype (bf16.enabled), or plan again",
            )


def _check_zero(engine: Any, plan: Plan) -> None:
    mine, planned = engine._config.zero_config, get_zero_config(dict(plan.deepspeed))
    names = ("stage", *(SETTINGS if planned.stage > 0 else ()), *(STAGE_3 if planned.stage == 3 else ()))
    found, wanted = (_settings(one, names) for one in (mine, planned))
    both = [name for name in found if name in wanted]
    if differing := [f"{name} {found[name]} for {wanted[name]}" for name in both if found[name] != wanted[name]]:
        raise ConfigError(
            f"zero_optimization of the DeepSpeed engine is not what was planned: {', '.join(differing)}", AS_PLANNED
        )


def _settings(config: Any, names: tuple[str, ...]) -> dict[str, str]:
    found = {name: _shown(getattr(config, name)) for name in names}
    for name in ("offload_optimizer", "offload_param"):
        section = getattr(config, name)
        device = found[f"{name}.device"] = "none" if section is None else _shown(section.device)
        if device == "nvme":
            found.update({f"{name}.{key}": _shown(getattr(section, key)) for key in ON_DISK if hasattr(section, key)})
    return found


def _shown(value: Any) -> str:
    """Enums by their value; numbers may be of a class of DeepSpeed's."""
    value = getattr(value, "value", value)
    return str(int(value)) if isinstance(value, int) and not isinstance(value, bool) else str(value)
