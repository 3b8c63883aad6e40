"""Makes the bindings of a model from the plan's parameter table and head map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from fpdt.models.base import EngineBinding, Family, Kernels, LayerBinding, Rotary
from fpdt.plan.data import HeadMap, ParameterTable
from fpdt.run.parameters import ParameterError, bind_weights


class EngineTables(Protocol):
    """What of a Plan the engine's binding is made of."""

    @property
    def parameters(self) -> ParameterTable: ...

    @property
    def head_map(self) -> HeadMap: ...

    @property
    def table_names(self) -> tuple[str, ...]: ...


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
    family: Family, model: nn.Module, plan: EngineTables, kernels: Kernels, emit: Callable[[Tensor], None]
) -> EngineBinding:
    """Names of head and embed weights in the plan are the model's own.

    Raises ParameterError when the plan's table does not describe the model.
    """
    causal_lm: Any = model
    table = plan.parameters
    num_norm = table.num_head_norm_elements
    is_tied = not any(row.offset >= num_norm for row in table.head)
    lm_head_rows = table.embed if is_tied else [row for row in table.head if row.offset >= num_norm]
    return EngineBinding(
        embed=causal_lm.get_input_embeddings(),
        norm=family.final_norm(model),
        lm_head=causal_lm.get_output_embeddings(),
        norm_weights=bind_weights(model, [row for row in table.head if row.offset < num_norm]),
        lm_head_weights=bind_weights(model, lm_head_rows, first=0 if is_tied else num_norm),
        head_weights=bind_weights(model, table.head),
        embed_weights=bind_weights(model, table.embed),
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
    count = sum(weight.numel() for weight in model.parameters())
    if count != table.num_model_parameters:
        raise ParameterError(f"the model has {count} parameters, the plan says {table.num_model_parameters}")
