"""Makes the bindings of a model from the plan's code, parameter table and head map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fpdt.attention import AttentionConfig
from fpdt.models.base import EngineBinding, HeadBinding, Kernels, LayerBinding
from fpdt.models.interpreter import Linker, RotaryOf
from fpdt.models.link import Rotary
from fpdt.plan.data import HeadMap, ParameterTable
from fpdt.plan.model_code import ModelCode
from fpdt.plan.nouns import PLAIN, FusedKernels
from fpdt.run.parameters import ParameterError, bind_weights


class PlannedModel(Protocol):
    """What of a Plan the bindings are made of."""

    @property
    def code(self) -> ModelCode: ...

    @property
    def parameters(self) -> ParameterTable: ...

    @property
    def head_map(self) -> HeadMap: ...

    @property
    def table_names(self) -> tuple[str, ...]: ...


def decoder_layers(model: nn.Module, code: ModelCode) -> list[nn.Module]:
    """Raises ParameterError for a model without the module that the plan names, or with other numbers of layers."""
    try:
        layers = list(model.get_submodule(code.layers).children())
    except AttributeError as error:
        raise ParameterError(f"the model has no module '{code.layers}', which the plan names") from error
    if len(layers) != len(code.class_of):
        raise ParameterError(f"the model has {len(layers)} decoder layers, the plan {len(code.class_of)}")
    return layers


def rotary_of(model: nn.Module, device: torch.device) -> RotaryOf:
    """From the config and not from the model's buffers, which model.to(bfloat16) rounds."""
    found: dict[str, Rotary] = {}

    def rotary(attributes: Mapping[str, Any]) -> Rotary:
        key = str(sorted(attributes.items()))
        if key not in found:
            found[key] = _rotary(model, attributes, device)
        return found[key]

    return rotary


def _rotary(model: Any, attributes: Mapping[str, Any], device: torch.device) -> Rotary:
    """Of `module`, whose buffers begin with `prefix`; of a model that has none, of `dims` and `theta`."""
    with torch.device("cpu"):
        if "module" not in attributes:
            dims = int(attributes["dims"])
            frequencies = 1.0 / float(attributes["theta"]) ** (torch.arange(0, dims, 2) / dims)
            return Rotary(frequencies.to(device), 1.0)
        made = type(model.get_submodule(attributes["module"]))(model.config)
    prefix = str(attributes.get("prefix", ""))
    frequencies = getattr(made, f"{prefix}inv_freq").to(device=device, dtype=torch.float32)
    return Rotary(frequencies, float(getattr(made, f"{prefix}attention_scaling")))


def bind_layer(
    module: nn.Module,
    number: int,
    plan: PlannedModel,
    rotary: RotaryOf,
    dtype: torch.dtype,
    fused: FusedKernels = PLAIN,
) -> LayerBinding:
    """Raises ParameterError when the plan's table or code does not describe the decoder layer `module`."""
    number_of_class = plan.code.class_of[number]
    weights = bind_weights(module, plan.parameters.layers[number_of_class].weights)
    code = plan.code.classes[number_of_class]
    link = Linker(module, weights, rotary, dtype, fused).link
    return LayerBinding(
        module=module,
        attention=AttentionConfig(scale=code.attention.scale, softcap=code.attention.softcap),
        pre=link(code.pre),
        pre_q=link(code.pre_q),
        pre_kv=link(code.pre_kv),
        pre_bwd=link(code.pre_bwd),
        post=link(code.post),
        post_bwd=link(code.post_bwd),
        post_keep=link(code.post_keep),
        post_bwd_kept=link(code.post_bwd_kept),
        weights=weights,
    )


def bind_engine(
    model: nn.Module,
    plan: PlannedModel,
    kernels: Kernels,
    emit: Callable[[Tensor], None],
    rotary: RotaryOf,
    dtype: torch.dtype,
) -> EngineBinding:
    """Names of head and embed weights in the plan are the model's own.

    Raises ParameterError when the plan's table or code does not describe the model.
    """
    causal_lm: Any = model
    table, code = plan.parameters, plan.code
    num_norm = table.num_head_norm_elements
    is_tied = not code.lm_head.weights
    lm_head_names = {use.name for use in code.lm_head.weights}
    lm_head_rows = table.embed[:1] if is_tied else [row for row in table.head if row.name in lm_head_names]
    head_weights, embed_weights = bind_weights(model, table.head), bind_weights(model, table.embed)
    head, embed = (Linker(model, slices, rotary, dtype, kernels.fused) for slices in (head_weights, embed_weights))
    lm_head, embedding = causal_lm.get_output_embeddings(), causal_lm.get_input_embeddings()
    outside = tuple(
        (module, parameter)
        for module, rows in ((lm_head, table.head), (embedding, table.embed))
        for parameter in (model.get_parameter(row.name) for row in rows)
        if all(parameter is not own for own in module.parameters())
    )
    return EngineBinding(
        embed_module=embedding,
        head_module=lm_head,
        embed=embed.link(code.embed),
        embed_bwd=embed.link(code.embed_bwd),
        head=HeadBinding(
            norm=head.link(code.head, keeps="@y"),
            norm_bwd=head.link(code.head_bwd),
            weight=lm_head.weight,
            bias=lm_head.bias,
            scale=code.lm_head.scale,
            softcap=code.lm_head.softcap,
        ),
        lm_head_weights=bind_weights(model, lm_head_rows, first=0 if is_tied else num_norm),
        head_weights=head_weights,
        embed_weights=embed_weights,
        outside=outside,
        kernels=kernels,
        head_map=plan.head_map,
        tables=plan.table_names,
        emit=emit,
    )


def check_complete(
    model: nn.Module, layers: Sequence[LayerBinding], extra: EngineBinding, table: ParameterTable
) -> None:
    """Raises ParameterError when the model trains a weight that the table lacks, or has another count of them."""
    groups = (*(layer.weights for layer in layers), extra.head_weights, extra.embed_weights)
    bound = {id(weight.parameter) for weights in groups for weight in weights}
    named = model.named_parameters()
    if missing := [name for name, weight in named if weight.requires_grad and id(weight) not in bound]:
        raise ParameterError(f"the model trains {len(missing)} weights that the plan lacks: {', '.join(missing[:4])}")
    # Under ZeRO-3 a weight is empty here, and says how large it is.
    count = sum(int(getattr(weight, "ds_numel", weight.numel())) for weight in model.parameters())
    if count != table.num_model_parameters:
        raise ParameterError(f"the model has {count} parameters, the plan says {table.num_model_parameters}")
