"""The optimizers and schedulers that a ds_config may name, with the parameters of their constructors."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from deepspeed.ops.adagrad import DeepSpeedCPUAdagrad
from deepspeed.ops.adam import DeepSpeedCPUAdam, FusedAdam
from deepspeed.ops.lion import DeepSpeedCPULion, FusedLion
from deepspeed.runtime import lr_schedules

OPTIMIZERS = {
    "FusedAdam": FusedAdam,
    "DeepSpeedCPUAdam": DeepSpeedCPUAdam,
    "FusedLion": FusedLion,
    "DeepSpeedCPULion": DeepSpeedCPULion,
    "DeepSpeedCPUAdagrad": DeepSpeedCPUAdagrad,
}


def optimizers() -> dict[str, Any]:
    torch_ones = {
        name: kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
    kinds = sorted({**torch_ones, **OPTIMIZERS}.items())
    return {name: signature(kind, ("params", "model_params")) for name, kind in kinds}


def schedulers() -> dict[str, Any]:
    kinds = {name: getattr(lr_schedules, name) for name in lr_schedules.VALID_LR_SCHEDULES}
    of_torch = torch.optim.lr_scheduler
    for name in of_torch.__all__:
        kinds.setdefault(name, getattr(of_torch, name))
    return {name: signature(kind, ("optimizer",)) for name, kind in sorted(kinds.items())}


def signature(kind: Any, own: tuple[str, ...]) -> dict[str, Any]:
    """Parameters of a constructor but for those in `own`; a required one has no default."""
    rows: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        if name in own or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        rows[name] = {} if parameter.default is parameter.empty else {"default": json_value(parameter.default)}
    return rows


def json_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, bool | int | float | str | None) else str(value)
