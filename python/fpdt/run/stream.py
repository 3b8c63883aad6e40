"""A Hugging Face model whose forwards run the turns of a plan: modules keep their place, name and weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fpdt.attention import Documents
from fpdt.models import (
    EngineBinding,
    Kernels,
    LayerBinding,
    bind_engine,
    bind_layer,
    check_complete,
    decoder_layers,
    rotary_of,
)
from fpdt.models.build import DTYPES
from fpdt.plan import Plan
from fpdt.run import autograd
from fpdt.run.context import Weights
from fpdt.run.program import EmittedGradients, Program, TurnRunner


@dataclass
class StreamedModel:
    """What `stream` bound. Forwards run once a program is attached, which needs arenas; hooks and engines do not."""

    model: nn.Module
    layers: Sequence[LayerBinding]
    extra: EngineBinding
    emitted: EmittedGradients
    _program: Program | None = field(default=None, init=False)

    @property
    def program(self) -> Program:
        if self._program is None:
            raise RuntimeError("a streamed model ran before its program was attached")
        return self._program

    @property
    def modules(self) -> list[nn.Module]:
        """The decoder layers."""
        return [layer.module for layer in self.layers]

    def attach(self, executor: TurnRunner, weights: Weights) -> Program:
        """Gives the forwards what runs their turns."""
        self._program = Program(executor, self.layers, self.extra, self.emitted, weights)
        return self._program


def stream(model: nn.Module, plan: Plan, kernels: Kernels, device: torch.device) -> StreamedModel:
    """Replaces the forwards of model, embedding, decoder layers and lm_head: each takes and returns a token.

    The model returns its loss. Knows no engine, process group, tracker or exit; weights may be sharded by ZeRO-3.
    Raises ParameterError for a model that is not the plan's.
    """
    dtype = DTYPES[plan.run["dtype"]]
    rotary = rotary_of(model, device)
    modules = decoder_layers(model, plan.code)
    layers = [bind_layer(module, number, plan, rotary, dtype) for number, module in enumerate(modules)]
    emitted = EmittedGradients()
    extra = bind_engine(model, plan, kernels, emitted, rotary, dtype)
    extra.documents = Documents() if plan.packing else None
    check_complete(model, layers, extra, plan.parameters)
    streamed = StreamedModel(model, layers, extra, emitted)
    _replace_forwards(streamed)
    return streamed


def _replace_forwards(streamed: StreamedModel) -> None:
    layers, extra = streamed.layers, streamed.extra
    embed_weights = [weight.parameter for weight in extra.embed_weights]
    head_weights = [weight.parameter for weight in extra.head_weights]

    def forward(token: Tensor) -> Tensor:
        token = extra.embed_module(token)
        for layer in layers:
            token = layer.module(token)
        loss: Tensor = extra.head_module(token)
        return loss

    _replace_forward(extra.embed_module, lambda token: autograd.embed(token, streamed.program, embed_weights))
    _replace_forward(extra.head_module, lambda token: autograd.head(token, streamed.program, head_weights))
    for number, layer in enumerate(layers):
        _replace_forward(layer.module, _layer_forward(number, layer, streamed))
    _replace_forward(streamed.model, forward)


def _layer_forward(number: int, layer: LayerBinding, streamed: StreamedModel) -> Callable[[Tensor], Tensor]:
    weights = [weight.parameter for weight in layer.weights]
    return lambda token: autograd.layer(token, streamed.program, number, weights)


def _replace_forward(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
    module.forward = forward
