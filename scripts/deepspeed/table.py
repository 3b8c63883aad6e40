"""What the installed DeepSpeed knows of a ds_config, as JSON on stdout: keys, types, ranges, defaults, old names.

Sections that are pydantic models are read as such. The others are plain dicts: their keys are those that DeepSpeed's
own config object asks a dict for, and whether it takes null or "auto" is found by giving it one.
"""

from __future__ import annotations

import json
import os
import sys
import typing
from enum import Enum
from pathlib import Path
from typing import Any

STDOUT = os.dup(1)
os.dup2(2, 1)

import deepspeed  # noqa: E402
import torch  # noqa: E402
from annotated_types import Ge, Gt, Le, Lt  # noqa: E402
from asked import Asked  # noqa: E402
from classes import optimizers, schedulers  # noqa: E402
from deepspeed.comm.config import CommsLoggerConfig  # noqa: E402
from deepspeed.compile.config import CompileConfig  # noqa: E402
from deepspeed.monitor.config import CometConfig, CSVConfig, TensorBoardConfig, WandbConfig  # noqa: E402
from deepspeed.runtime import config as ds  # noqa: E402
from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config  # noqa: E402
from deepspeed.runtime.tensor_parallel.config import TPTrainingConfig  # noqa: E402
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig  # noqa: E402
from deepspeed.utils.config import DeepSpeedThroughputTimerConfig  # noqa: E402
from pydantic import BaseModel  # noqa: E402

MODELS: dict[str, type[BaseModel]] = {
    "zero_optimization": DeepSpeedZeroConfig,
    "bf16": DeepSpeedBF16Config,
    "bfloat16": DeepSpeedBF16Config,
    "fp16": DeepSpeedFP16Config,
    "comms_logger": CommsLoggerConfig,
    "tensorboard": TensorBoardConfig,
    "wandb": WandbConfig,
    "csv_monitor": CSVConfig,
    "comet": CometConfig,
    "hybrid_engine": ds.HybridEngineConfig,
    "compile": CompileConfig,
    "tensor_parallel": TPTrainingConfig,
    "timers.throughput": DeepSpeedThroughputTimerConfig,
}
DICTS = (
    "",
    "optimizer",
    "scheduler",
    "activation_checkpointing",
    "flops_profiler",
    "aio",
    "checkpoint",
    "checkpoint.parallel_write",
    "checkpoint.writer",
    "data_types",
    "torch_autocast",
    "timers",
)
"""Sections of features that are refused by name are no more than objects here."""
OBJECTS = (
    "autotuning",
    "data_efficiency",
    "datastates_ckpt",
    "expert_parallel",
    "pipeline",
    "weight_quantization",
)
READ_ELSEWHERE = {
    "": {
        "sequence_parallel_size": "integer",
        "data_parallel_size": "integer",
        "vocabulary_size": "integer",
        "allgather_size": "integer",
    },
}
"""Read beside the config object: deepspeed/__init__.py, `_do_warning_check`, `read_zero_config_deprecated`."""
TYPES_WITHOUT_DEFAULT = {
    "train_batch_size": "integer",
    "train_micro_batch_size_per_gpu": "integer",
    "gradient_accumulation_steps": "integer",
    "steps_per_print": "number",
    "communication_data_type": "string",
    "log_level": "string",
    "optimizer.type": "string",
    "optimizer.params": "object",
    "optimizer.legacy_fusion": "boolean",
    "scheduler.type": "string",
    "scheduler.params": "object",
    "activation_checkpointing.number_checkpoints": "integer",
    "flops_profiler.output_file": "string",
    "checkpoint.writer": "object",
    "checkpoint.parallel_write": "object",
    "checkpoint.writer.data_parallel": "string",
    "checkpoint.writer.decoupled": "boolean",
    "seq_parallel_communication_data_type": "string",
    "checkpoint.tag_validation": "string",
    "data_types.grad_accum_dtype": "string",
    "data_types.param_dtype": "string",
    "data_types.buffer_dtype": "string",
    "data_types.keep_in_fp32_modules": "any",
    "torch_autocast.dtype": "string",
    "torch_autocast.lower_precision_safe_modules": "list",
    "gradient_clipping": "number",
    "gradient_predivide_factor": "number",
    "flops_profiler.recompute_fwd_factor": "number",
    "dataloader_drop_last": "boolean",
    "timers.throughput": "object",
}
"""Of keys whose default is None, or of a type that says less than the key's own."""
SIGNS = {Gt: ("above", "gt"), Ge: ("min", "ge"), Lt: ("below", "lt"), Le: ("max", "le")}
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string", list: "list", tuple: "list", dict: "object"}


def model_keys(model: type[BaseModel]) -> dict[str, Any]:
    validated = model.__pydantic_decorators__.field_validators.values()
    plain = {name for one in validated if one.info.mode == "before" for name in one.info.fields}
    # No file can hold a torch.dtype.
    fields = {name: field for name, field in model.model_fields.items() if field.annotation is not torch.dtype}
    rows = {name: field_row(field) for name, field in sorted(fields.items())}
    return {name: {**row, "noBoolean": True} if name in plain else row for name, row in rows.items()}


def field_row(field: Any) -> dict[str, Any]:
    args = [one for one in typing.get_args(field.annotation) if one is not type(None)]
    is_optional = type(None) in typing.get_args(field.annotation)
    kind = args[0] if is_optional and args else field.annotation
    row: dict[str, Any] = {"type": type_of(kind)}
    if is_optional:
        row["nullable"] = True
    if typing.get_origin(kind) is typing.Literal:
        row.update(type="string", values=list(typing.get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        row["values"] = list(dict.fromkeys(one.value for one in kind))
    for one in field.metadata:
        if type(one) in SIGNS:
            name, attribute = SIGNS[type(one)]
            row[name] = getattr(one, attribute)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        row["keys"] = model_keys(kind)
        row["strict"] = True
    elif field.default_factory is None and field.default is not None:
        row["default"] = plain(field.default)
    if field.alias is not None:
        row["alias"] = field.alias
    extra = field.json_schema_extra or {}
    if extra.get("deprecated"):
        row["becomes"] = extra.get("new_param", "")
    return row


def type_of(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin is not None:
        return TYPES.get(origin, "any")
    if not isinstance(kind, type):
        return "any"
    if issubclass(kind, BaseModel):
        return "object"
    for base in (bool, int, float, str, Path, list, tuple, dict):
        if issubclass(kind, base):
            return TYPES[base]
    return "any"


def plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def sections_asked() -> dict[str, Asked]:
    found: dict[str, Asked] = {}
    for path in DICTS[1:]:
        given = {"optimizer": {"type": "Adam"}, "scheduler": {"type": "WarmupLR"}}.get(path, {})
        if path == "timers":
            given = {"throughput": {}}
        if path == "torch_autocast":
            given = {"dtype": "bf16", "lower_precision_safe_modules": []}
        found[path] = Asked(given)
    found["checkpoint"].update(parallel_write=found["checkpoint.parallel_write"], writer=found["checkpoint.writer"])
    top = {path: section for path, section in found.items() if "." not in path}
    found[""] = Asked({"train_micro_batch_size_per_gpu": 1, **top})
    ds.DeepSpeedConfig(found[""])
    return found


def dict_keys(path: str, asked: Asked) -> dict[str, Any]:
    removed = ds._REMOVED_TOP_LEVEL_CONFIG_KEYS if path == "" else {}
    names = {name for name in asked.asked if name not in removed} | set(READ_ELSEWHERE.get(path, {}))
    return {name: dict_row(path, name, asked.asked.get(name)) for name in sorted(names)}


def dict_row(path: str, name: str, default: Any) -> dict[str, Any]:
    full = f"{path}.{name}" if path else name
    default = default.value if isinstance(default, Enum) else default
    known = {**READ_ELSEWHERE.get(path, {}), **TYPES_WITHOUT_DEFAULT}
    is_section = full in MODELS or full in DICTS or full in OBJECTS
    kind = "object" if is_section else known.get(full, known.get(name) if path == "" else None)
    if kind is None:
        kind = TYPES.get(type(default), "any")
    if kind == "any" and full not in TYPES_WITHOUT_DEFAULT:
        UNTYPED.append(full)
    row: dict[str, Any] = {"type": kind}
    if takes(full, None):
        row["nullable"] = True
    if takes(full, "auto"):
        row["auto"] = True
    if not is_section and isinstance(default, bool | int | float | str):
        row["default"] = default
    if full in MODELS:
        row["keys"] = model_keys(MODELS[full])
        row["strict"] = True
    elif full in DICTS:
        row["keys"] = dict_keys(full, ASKED[full])
    return row


def takes(path: str, value: Any) -> bool:
    """Whether DeepSpeed's config object can be made with the value at the path."""
    *parents, name = path.split(".")
    config: dict[str, Any] = {"train_micro_batch_size_per_gpu": 1}
    section = config
    for parent in parents:
        section[parent] = {}
        section = section[parent]
    section[name] = value
    if name == "params":
        section["type"] = "WarmupLR" if "scheduler" in parents else "AdamW"
    if name == "train_micro_batch_size_per_gpu":
        config["train_batch_size"] = 1
    try:
        ds.DeepSpeedConfig(config)
    except Exception:
        return False
    return True


UNTYPED: list[str] = []
ASKED = sections_asked()


def main() -> None:
    table = {
        "version": str(deepspeed.__version__),
        "keys": dict_keys("", ASKED[""]),
        "removed": sorted(ds._REMOVED_TOP_LEVEL_CONFIG_KEYS),
        "removedFromZero": sorted(ds._REMOVED_ZERO_CONFIG_KEYS),
        "optimizers": optimizers(),
        "schedulers": schedulers(),
    }
    if UNTYPED:
        raise SystemExit(f"give types in scripts/deepspeed/table.py to {UNTYPED}")
    with os.fdopen(STDOUT, "w") as file:
        json.dump(table, file, indent=1)
    sys.stdout.flush()


main()
