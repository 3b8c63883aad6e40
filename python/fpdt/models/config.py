"""A Hugging Face config from the JSON that a plan carries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, __version__
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from fpdt.errors import FpdtError


class UnsupportedModelError(FpdtError):
    """A model_type that the installed transformers has no language model of."""


def config_of(hf_config: Mapping[str, Any]) -> PreTrainedConfig:
    """The config class's own reading of it. Raises UnsupportedModelError."""
    config: PreTrainedConfig = AutoConfig.for_model(**typed(hf_config))
    return config


def typed(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """With floats where its class wants floats: JSON has one kind of numbers, and JavaScript writes 30.0 as 30.

    Raises UnsupportedModelError.
    """
    model_type = str(hf_config.get("model_type"))
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UnsupportedModelError(
            f"transformers {__version__} has no language model of model_type '{model_type}'",
            "install the transformers of python/requirements.txt",
        )
    floats = _float_fields(CONFIG_MAPPING[model_type])
    given: dict[str, Any] = dict(hf_config)
    for key, value in hf_config.items():
        if key in floats and type(value) is int:
            given[key] = float(value)
    return given


def _float_fields(config_class: Any) -> frozenset[str]:
    """Fields that take a float and no int."""
    if not dataclasses.is_dataclass(config_class):
        return frozenset()
    types = {field.name: str(field.type) for field in dataclasses.fields(config_class)}
    return frozenset(name for name, text in types.items() if "float" in text and "int" not in text)
