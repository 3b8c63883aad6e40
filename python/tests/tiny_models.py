"""Small Hugging Face Llamas and their bindings, for tests of models and ops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from fpdt.attention import backend_named
from fpdt.models import EngineBinding, Kernels, LayerBinding, bind_engine, bind_layer, family_named
from fpdt.plan.data import HeadMap, ParameterTable, ParameterView

PRE_MODULES = ("input_layernorm.", "self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj.")


def tiny_llama(dtype: torch.dtype = torch.float32, **overrides: Any) -> LlamaForCausalLM:
    """One layer, 4 heads, 2 key/value heads, with weights and norms that are nowhere 1 or 0."""
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
    config = LlamaConfig(**options)
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


def table_of(model: LlamaForCausalLM) -> ParameterTable:
    """As the planner makes it: what pre uses first; a tied weight is the embedding's alone."""
    layer = sorted(model.model.layers[0].named_parameters(), key=lambda item: not item[0].startswith(PRE_MODULES))
    num_pre = sum(parameter.numel() for name, parameter in layer if name.startswith(PRE_MODULES))
    head = [("model.norm.weight", model.model.norm.weight)]
    if not model.config.tie_word_embeddings:
        head.append(("lm_head.weight", model.lm_head.weight))
    embed = [("model.embed_tokens.weight", model.model.embed_tokens.weight)]
    return ParameterTable(
        layer=views(layer),
        num_pre_elements=num_pre,
        head=views(head),
        embed=views(embed),
        num_head_norm_elements=model.model.norm.weight.numel(),
        num_layer_elements=sum(parameter.numel() for _, parameter in layer),
        num_head_elements=sum(parameter.numel() for _, parameter in head),
        num_embed_elements=sum(parameter.numel() for _, parameter in embed),
        num_model_parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def views(named: list[tuple[str, nn.Parameter]]) -> tuple[ParameterView, ...]:
    rows, offset = [], 0
    for name, parameter in named:
        rows.append(ParameterView(name, tuple(parameter.shape), offset, parameter.numel(), parameter.requires_grad))
        offset += parameter.numel()
    return tuple(rows)


def bound_layer(model: LlamaForCausalLM) -> LayerBinding:
    family = family_named("llama")
    rotary = family.rotary(model, torch.device("cpu"))
    return bind_layer(family, family.layers(model)[0], rotary, table_of(model))


def even_head_map(num_ranks: int, heads: int = 4, kv_heads: int = 2) -> HeadMap:
    def lists(count: int) -> tuple[tuple[int, ...], ...]:
        own = count // num_ranks
        return tuple(tuple(range(rank * own, (rank + 1) * own)) for rank in range(num_ranks))

    return HeadMap(lists(heads), lists(kv_heads))


def refuse_emit(region: Tensor) -> None:
    raise AssertionError(f"unexpected emitGrads of {region.numel()} elements")


@dataclass(frozen=True)
class Tables:
    """What bind_engine reads of a plan."""

    parameters: ParameterTable
    head_map: HeadMap
    table_names: tuple[str, ...] = ("tokenIds", "positions", "labels")


def bound_engine(
    model: LlamaForCausalLM,
    head_map: HeadMap | None = None,
    emit: Callable[[Tensor], None] = refuse_emit,
    attention: str = "cpu_flash",
) -> EngineBinding:
    kernels = Kernels(backend_named(attention), backend_named(attention))
    tables = Tables(table_of(model), head_map or even_head_map(1))
    return bind_engine(family_named("llama"), model, tables, kernels, emit)
