"""What of the training state is no tensor: scheduler, loss scale, DeepSpeed's counts; and random numbers, which are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

ENGINE_COUNTS = ("global_steps", "global_samples", "skipped_steps")
SCALE_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""Of DeepSpeed's loss scalers, those of ZeRO (`loss_scaler`) and of stage 0 (`loss_scale_config`)."""
SCHEDULED = ("lr", "betas", "momentum")
"""What DeepSpeed's schedulers change in the groups of an optimizer, and their own states do not have."""
CPU_RANDOM, DEVICE_RANDOM = "rngCpu", "rngDevice"


def save_counters(engine: Any) -> dict[str, Any]:
    """JSON-safe."""
    scheduler, scaler = engine.lr_scheduler, _scaler(engine.optimizer)
    return {
        "engine": {name: int(getattr(engine, name)) for name in ENGINE_COUNTS},
        "scheduler": None if scheduler is None else dict(scheduler.state_dict()),
        "scheduled": [
            {name: group[name] for name in SCHEDULED if name in group} for group in engine.optimizer.param_groups
        ],
        "lossScale": {name: getattr(scaler, name) for name in SCALE_FIELDS if hasattr(scaler, name)},
    }


def restore_counters(engine: Any, saved: Mapping[str, Any]) -> None:
    """Of a loss scale and a scheduler only what this run has too: a plan may change both."""
    for name, count in saved["engine"].items():
        setattr(engine, name, count)
    scaler = _scaler(engine.optimizer)
    for name, value in saved["lossScale"].items():
        if hasattr(scaler, name) and engine.fp16_enabled():
            setattr(scaler, name, value)
    if engine.lr_scheduler is None or saved["scheduler"] is None:
        return
    engine.lr_scheduler.load_state_dict(saved["scheduler"])
    for group, values in zip(engine.optimizer.param_groups, saved["scheduled"], strict=False):
        group.update({name: tuple(value) if name == "betas" else value for name, value in values.items()})


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Bytes; a rank's own, of use to a run of as many ranks."""
    states = {CPU_RANDOM: torch.get_rng_state()}
    if device.type == "cuda":
        states[DEVICE_RANDOM] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    if CPU_RANDOM in states:
        torch.set_rng_state(states[CPU_RANDOM])
    if DEVICE_RANDOM in states and device.type == "cuda":
        torch.cuda.set_rng_state(states[DEVICE_RANDOM], device)


def _scaler(optimizer: Any) -> Any:
    return getattr(optimizer, "loss_scale_config", None) or getattr(optimizer, "loss_scaler", None)
