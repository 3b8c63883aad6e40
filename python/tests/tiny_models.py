"""Small Hugging Face Llamas and their bindings, for tests of models and ops."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from fpdt.attention import backend_named
from fpdt.models import EngineBinding, Kernels, LayerBinding, bind_engine, bind_layer, decoder_layers, rotary_of
from fpdt.models.fused import FUSED_KERNELS
from fpdt.plan.data import HeadMap, ParameterTable
from fpdt.plan.model_code import ModelCode
from fpdt.plan.nouns import PLAIN, FusedKernels
from tests.model_code import planned_model

CPU = torch.device("cpu")
FUSED = FusedKernels(**{kind: names[0] for kind, names in FUSED_KERNELS.items()}, block_bytes=700)
"""All kernels beside attention that are not plain, with blocks of a few rows."""


def tiny_config(**overrides: Any) -> LlamaConfig:
    """One layer, 4 heads, 2 key/value heads."""
    options = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 40,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        **overrides,
    }
    return LlamaConfig(**options)


def config_json(config: LlamaConfig) -> dict[str, Any]:
    """As config.json has it, with all its defaults."""
    read: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return read


def tiny_llama(dtype: torch.dtype = torch.float32, **overrides: Any) -> LlamaForCausalLM:
    """A model of `tiny_config`, with weights and norms that are nowhere 1 or 0."""
    config = tiny_config(**overrides)
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.2
        parameter.data = (noise + (1.0 if parameter.dim() == 1 else 0.0)).to(dtype)
    return model


def causal_mask(rows: int, dtype: torch.dtype) -> Tensor:
    return torch.full((1, 1, rows, rows), torch.finfo(dtype).min, dtype=dtype).triu(1)


def layer_forward(model: LlamaForCausalLM, x: Tensor, positions: Tensor) -> Tensor:
    """The decoder layer as Hugging Face runs it; x [rows, hidden]."""
    y = model.model.layers[0](
        x[None],
        attention_mask=causal_mask(x.shape[0], x.dtype),
        position_ids=positions[None],
        position_embeddings=model.model.rotary_emb(x[None], positions[None]),
    )
    assert isinstance(y, Tensor)
    return y[0]


@dataclass(frozen=True)
class Tables:
    """What the bindings read of a plan."""

    code: ModelCode
    parameters: ParameterTable
    head_map: HeadMap
    table_names: tuple[str, ...] = ("tokenIds", "positions", "labels")


def tables_of(model: LlamaForCausalLM, head_map: HeadMap | None = None) -> Tables:
    """As the planner makes them of the model's config; what is frozen in the model is so in the table."""
    frozen = [name for name, one in model.named_parameters() if not one.requires_grad]
    planned = planned_model(config_json(model.config), {"freeze": frozen})
    return Tables(planned.code, planned.table, head_map or even_head_map(1))


def bound_layer(model: LlamaForCausalLM, tables: Tables | None = None, fused: FusedKernels = PLAIN) -> LayerBinding:
    """`tables`: of another model."""
    tables = tables or tables_of(model)
    (layer,) = decoder_layers(model, tables.code)
    return bind_layer(layer, 0, tables, rotary_of(model, CPU), dtype_of(model), fused)


def dtype_of(model: LlamaForCausalLM) -> torch.dtype:
    return next(model.parameters()).dtype


def even_head_map(num_ranks: int, heads: int = 4, kv_heads: int = 2) -> HeadMap:
    def lists(count: int) -> tuple[tuple[int, ...], ...]:
        own = count // num_ranks
        return tuple(tuple(range(rank * own, (rank + 1) * own)) for rank in range(num_ranks))

    return HeadMap(lists(heads), lists(kv_heads))


def refuse_emit(region: Tensor) -> None:
    raise AssertionError(f"unexpected emitGrads of {region.numel()} elements")


def bound_engine(
    model: LlamaForCausalLM,
    head_map: HeadMap | None = None,
    emit: Callable[[Tensor], None] = refuse_emit,
    attention: str = "cpu_flash",
    fused: FusedKernels = PLAIN,
) -> EngineBinding:
    kernels = Kernels(backend_named(attention), backend_named(attention), fused)
    return bind_engine(model, tables_of(model, head_map), kernels, emit, rotary_of(model, CPU), dtype_of(model))
