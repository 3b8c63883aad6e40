"""The Hugging Face model of a plan, with the weights that every rank and every reference starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

from fpdt.models.config import config_of

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def build_model(
    hf_config: Mapping[str, Any],
    seed: int,
    dtype: torch.dtype,
    attention: Literal["eager", "sdpa"] = "eager",
) -> nn.Module:
    """Initialised in fp32 after `torch.manual_seed(seed)`, then cast to `dtype`: the same weights in every process.

    Only weights are cast. `model.to(bfloat16)` would round the rotary embedding's frequencies too.
    """
    config = config_of({**hf_config, "dtype": "float32", "use_cache": False})
    # A model whose scores may have a softcap has them written out only.
    supports_sdpa = getattr(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], "_supports_sdpa", False)
    config._attn_implementation = attention if supports_sdpa else "eager"
    torch.manual_seed(seed)
    build: Callable[..., nn.Module] = AutoModelForCausalLM.from_config
    model = build(config)
    cast_weights(model, dtype)
    return model


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """In place, one weight at a time."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
