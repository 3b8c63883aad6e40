"""What transformers says about a model: the shape of every parameter. Called through a JSON-text bridge only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fpdt.wire.calls import answer


def parameter_shapes(hf_config: Mapping[str, Any], lora: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Shapes by full name, a tied weight under each of its names, and the number of parameters of the model.

    `lora`: peft's LoraConfig of the adapters that it has.

    The model is built on the meta device: no memory for weights is touched.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from fpdt.models.adapters import inject
    from fpdt.models.config import config_of

    build: Callable[..., torch.nn.Module] = AutoModelForCausalLM.from_config
    config = config_of(hf_config)
    with torch.device("meta"):
        model = build(config)
        if lora is not None:
            inject(model, lora)
    return {
        "shapes": {name: list(one.shape) for name, one in model.named_parameters(remove_duplicate=False)},
        "numParameters": sum(one.numel() for one in model.parameters()),
    }


FUNCTIONS: dict[str, Callable[..., Any]] = {"parameter_shapes": parameter_shapes}


def invoke(name: str, arguments: str) -> str:
    """See wire.calls.answer."""
    return answer(FUNCTIONS, name, arguments)
