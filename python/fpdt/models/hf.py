"""The Hugging Face model of a plan, with the weights that every rank and every reference starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from fpdt.models.base import UnsupportedModelError

MODELS: Mapping[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}
"""Config and model class by model_type."""

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def build_model(
    hf_config: Mapping[str, Any],
    seed: int,
    dtype: torch.dtype,
    attention: Literal["eager", "sdpa"] = "eager",
) -> LlamaForCausalLM | MistralForCausalLM:
    """Initialised in fp32 after `torch.manual_seed(seed)`, then cast to `dtype`: the same weights in every process.

    Only weights are cast. `model.to(bfloat16)` would round the rotary embedding's frequencies too.
    """
    model_type = hf_config.get("model_type", "llama")
    if model_type not in MODELS:
        raise UnsupportedModelError(f"model_type '{model_type}' has no family here; {' and '.join(MODELS)} have")
    config_class, model_class = MODELS[model_type]
    config = config_class.from_dict({**hf_config, "dtype": "float32", "use_cache": False})
    config._attn_implementation = attention
    torch.manual_seed(seed)
    model: LlamaForCausalLM | MistralForCausalLM = model_class(config)
    cast_weights(model, dtype)
    return model


def cast_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """In place, one weight at a time."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
