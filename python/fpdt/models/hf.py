"""The Hugging Face model of a plan, with the weights that every rank and every reference starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fpdt.models.base import UnsupportedModelError

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def build_model(
    hf_config: Mapping[str, Any],
    seed: int,
    dtype: torch.dtype,
    attention: Literal["eager", "sdpa"] = "eager",
) -> LlamaForCausalLM:
    """Initialised in fp32 after `torch.manual_seed(seed)`, then cast to `dtype`: the same weights in every process.

    Only weights are cast. `model.to(bfloat16)` would round the rotary embedding's frequencies too.
    """
    if hf_config.get("model_type", "llama") != "llama":
        raise UnsupportedModelError(f"model_type '{hf_config['model_type']}' has no family here; 'llama' has")
    config = LlamaConfig.from_dict({**hf_config, "dtype": "float32", "use_cache": False})
    config._attn_implementation = attention
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    cast_weights(model, dtype)
    return model


def cast_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """In place, one weight at a time."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
