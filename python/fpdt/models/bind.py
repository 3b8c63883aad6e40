"""Makes the bindings of a model from the plan's parameter table and head map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from fpdt.attention import AttentionBackend
from fpdt.models.base import EngineBinding, Family, LayerBinding, Rotary, UnsupportedModelError
from fpdt.plan.data import HeadMap, ParameterTable
from fpdt.run.parameters import ParameterError, bind_weights


def bind_layer(family: Family, module: nn.Module, rotary: Rotary, table: ParameterTable) -> LayerBinding:
    """Raises ParameterError when the table does not describe the decoder layer `module`."""
    num_pre = table.num_pre_elements
    return LayerBinding(
        module=module,
        family=family,
        attention=family.attention(module),
        rotary=rotary,
        pre_weights=bind_weights(module, [row for row in table.layer if row.offset < num_pre]),
        post_weights=bind_weights(module, [row for row in table.layer if row.offset >= num_pre], first=num_pre),
        weights=bind_weights(module, table.layer),
    )


def bind_engine(
    family: Family,
    model: nn.Module,
    table: ParameterTable,
    head_map: HeadMap,
    attention: AttentionBackend,
    emit: Callable[[int, Tensor], None],
) -> EngineBinding:
    """`table` and `head_map` are the plan's; names of head and embed weights are the model's own.

    Raises ParameterError when the table does not describe the model, UnsupportedModelError for an uneven head map.
    """
    _check_even(head_map)
    causal_lm: Any = model
    return EngineBinding(
        embed=causal_lm.get_input_embeddings(),
        norm=family.final_norm(model),
        lm_head=causal_lm.get_output_embeddings(),
        head_weights=bind_weights(model, table.head),
        embed_weights=bind_weights(model, table.embed),
        attention=attention,
        head_map=head_map,
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
    count = sum(weight.numel() for weight in model.parameters())
    if count != table.num_model_parameters:
        raise ParameterError(f"the model has {count} parameters, the plan says {table.num_model_parameters}")


def _check_even(head_map: HeadMap) -> None:
    for name, lists in (("query", head_map.query), ("keyValue", head_map.key_value)):
        counts = [len(heads) for heads in lists]
        if len(counts) != len(head_map.query) or len(set(counts)) != 1:
            raise UnsupportedModelError(
                f"headMap.{name} must give each of {len(head_map.query)} ranks the same number of heads, got {counts}; "
                "choose a sequenceParallelSize that divides the heads"
            )
