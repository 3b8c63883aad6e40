"""The Llama family: Hugging Face LlamaForCausalLM, its decoder layer cut into pre, attention and post.

Norms, projections and the MLP are the layer's own modules, so pre and post are numerically the Hugging Face layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, rotate_half

from fpdt.attention import AttentionConfig
from fpdt.models.base import LayerBinding, Rotary, UnsupportedModelError

# Types whose frequencies do not depend on the length seen so far; `dynamic` and `longrope` ones do.
STATIC_ROPE_TYPES = ("default", "linear", "llama3", "yarn")


class LlamaFamily:
    """pre and post of one decoder layer; see models.base.Family for shapes."""

    name = "llama"

    def check(self, config: Mapping[str, Any]) -> None:
        """Raises UnsupportedModelError for a Hugging Face config that this family would not train exactly."""
        dropout = config.get("attention_dropout") or 0.0
        if dropout > 0:
            raise UnsupportedModelError(
                f"attention_dropout={dropout} is undefined when attention is recomputed; set attention_dropout=0"
            )
        rope_type = _rope_type(config)
        if rope_type not in STATIC_ROPE_TYPES:
            raise UnsupportedModelError(
                f"rope type '{rope_type}' changes with the length seen; use one of {', '.join(STATIC_ROPE_TYPES)}"
            )

    def layers(self, model: nn.Module) -> Sequence[nn.Module]:
        layers: Sequence[nn.Module] = _part(_part(model, "model"), "layers")
        return layers

    def final_norm(self, model: nn.Module) -> nn.Module:
        norm: nn.Module = _part(_part(model, "model"), "norm")
        return norm

    def attention(self, layer: nn.Module) -> AttentionConfig:
        return AttentionConfig(scale=float(_part(layer, "self_attn").scaling))

    def rotary(self, model: nn.Module, device: torch.device) -> Rotary:
        """From the config and not from the model's buffer, which model.to(bfloat16) rounds."""
        with torch.device("cpu"):
            embedding = LlamaRotaryEmbedding(_part(model, "config"))
        return Rotary(embedding.inv_freq.to(device=device, dtype=torch.float32), float(embedding.attention_scaling))

    def pre(self, layer: LayerBinding, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, (cos, sin) = _norm(layer, x), _cos_sin(layer.rotary, positions, x.dtype)
        q, k = _project(layer, "q_proj", x), _project(layer, "k_proj", x)
        return _rotate(q, cos, sin), _rotate(k, cos, sin), _project(layer, "v_proj", x)

    def pre_q(self, layer: LayerBinding, x: Tensor, positions: Tensor) -> Tensor:
        x, (cos, sin) = _norm(layer, x), _cos_sin(layer.rotary, positions, x.dtype)
        return _rotate(_project(layer, "q_proj", x), cos, sin)

    def pre_kv(self, layer: LayerBinding, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        x, (cos, sin) = _norm(layer, x), _cos_sin(layer.rotary, positions, x.dtype)
        return _rotate(_project(layer, "k_proj", x), cos, sin), _project(layer, "v_proj", x)

    def post(self, layer: LayerBinding, x: Tensor, o: Tensor) -> Tensor:
        attention = _part(layer.module, "self_attn")
        x = x + attention.o_proj(o.flatten(1))
        normed = _part(layer.module, "post_attention_layernorm")(x)
        y: Tensor = x + _part(layer.module, "mlp")(normed)
        return y


def _rope_type(config: Mapping[str, Any]) -> str:
    """`rope_parameters` in new configs, `rope_scaling` with `rope_type` or `type` in older ones."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return str(rope.get("rope_type", rope.get("type", "default")))


def _part(layer: nn.Module, name: str) -> Any:
    """A submodule as Any: nn.Module's attributes have no useful type."""
    return getattr(layer, name)


def _norm(layer: LayerBinding, x: Tensor) -> Tensor:
    normed: Tensor = _part(layer.module, "input_layernorm")(x)
    return normed


def _project(layer: LayerBinding, name: str, x: Tensor) -> Tensor:
    """[rows, hidden] -> [rows, heads, d]."""
    attention = _part(layer.module, "self_attn")
    projected: Tensor = getattr(attention, name)(x)
    return projected.view(x.shape[0], -1, attention.head_dim)


def _cos_sin(rotary: Rotary, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """[rows, 1, d] each. The product is taken in fp32 by absolute position, as Hugging Face does."""
    angles = positions.float()[:, None, None] * rotary.inverse_frequency
    angles = torch.cat((angles, angles), dim=-1)
    return (angles.cos() * rotary.scaling).to(dtype), (angles.sin() * rotary.scaling).to(dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotated: Tensor = x * cos + rotate_half(x) * sin  # type: ignore[no-untyped-call]
    return rotated
