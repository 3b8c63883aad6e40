"""LoRA adapters beside the linear modules of a model: peft puts them there, under its own names."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from fpdt.models.build import Shard, seed_of
from fpdt.models.export import FolderWriter


def add_adapters(
    model: nn.Module,
    lora: Mapping[str, Any],
    seed: int,
    dtype: torch.dtype,
    *,
    shard: Shard | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """In place; `lora` is peft's LoraConfig. The model's own weights may be sharded, and lose their gradients.

    Adapters start as peft starts them, but depend on the seed and the module's name alone, as all weights do.
    """
    config = inject(model, lora)
    from peft.tuners.lora import LoraLayer

    for path, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        for group in ("lora_A", "lora_B"):
            ((adapter, module),) = getattr(layer, group).items()
            generator = torch.Generator().manual_seed(seed_of(seed, f"{path}.{group}.{adapter}"))
            value = _start(module.weight, group, config.init_lora_weights, generator)
            module.weight.data = value.to(device=device, dtype=dtype)
            if shard is not None:
                shard(model, f"{path}.{group}.{adapter}")


def inject(model: nn.Module, lora: Mapping[str, Any]) -> Any:
    """peft's own part of it; the LoraConfig that it now has."""
    from peft import LoraConfig, inject_adapter_in_model  # slow to import

    config = LoraConfig(**lora)
    with warnings.catch_warnings():
        # Of Conv1D it says that it corrects fan_in_fan_out, which it does.
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        inject_adapter_in_model(config, model)
    return config


def _start(weight: Tensor, group: str, init: bool | str, generator: torch.Generator) -> Tensor:
    """As LoraLayer.reset_lora_parameters has it; where that is left out, as nn.Linear starts."""
    value = torch.empty(weight.shape, dtype=torch.float32)
    if group == "lora_B" and init is not False:
        return nn.init.zeros_(value)
    if init == "gaussian":
        return nn.init.normal_(value, std=1 / weight.shape[0], generator=generator)
    return nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=generator)


class AdapterWriter(FolderWriter):
    """Writes adapters as peft does: PeftModel.from_pretrained loads them beside the base model.

    Their config names the base model by `base`, the folder that its weights came from.
    """

    config_file = "adapter_config.json"
    single_file = "adapter_model.safetensors"

    def __init__(self, target: Path, num_bytes: int, base: Path | None) -> None:
        super().__init__(target, num_bytes)
        self._base = base

    def takes(self, weight: nn.Parameter) -> bool:
        return weight.requires_grad

    def _saved(self, model: nn.Module, name: str, weight: Tensor) -> Mapping[str, Tensor]:
        return {f"base_model.model.{name.replace('.default.', '.')}": weight}

    def _config(self, model: Any) -> str:
        config = model.peft_config["default"]
        config.inference_mode = True
        if self._base is not None:
            config.base_model_name_or_path = str(self._base)
        with TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            return (Path(folder) / self.config_file).read_text()
