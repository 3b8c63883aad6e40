"""A Hugging Face model whose modules run the turns of a plan: they keep their place, name and weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from deepspeed.runtime.zero.partition_parameters import register_external_parameter, unregister_external_parameter
from deepspeed.utils import set_z3_leaf_module
from torch import Tensor, nn

from fpdt.attention import Documents
from fpdt.errors import FpdtError
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


class CopiedModelError(FpdtError):
    """A streamed model was to be copied or pickled: forwards of the copy would run on the weights of the first."""


@dataclass
class StreamedModel:
    """What `stream` bound. `run` needs a program, which needs arenas; hooks and engines do not."""

    model: nn.Module
    layers: Sequence[LayerBinding]
    extra: EngineBinding
    emitted: EmittedGradients
    is_running: bool = field(default=False, init=False)
    """Whether modules run turns. At other times they have Hugging Face's own forwards."""
    _program: Program | None = field(default=None, init=False)
    _undo: ExitStack = field(default_factory=ExitStack, init=False)

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

    def run(self, token: Tensor) -> Tensor:
        """The forward of what the program began; the rank's loss, a scalar."""
        self.is_running = True
        try:
            token = self.extra.embed_module(token)
            for layer in self.layers:
                token = layer.module(token)
            loss: Tensor = self.extra.head_module(token)
            return loss
        finally:
            self.is_running = False

    def replace_forward(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        """Until `undo`. The module can be neither copied nor pickled meanwhile."""
        self._undo.callback(_restore_forward, module, module.__dict__.get("forward"))
        module.forward = Forward(forward, module.forward)

    def undo(self) -> None:
        """Gives every module its forward back. No backward runs any more."""
        if self._program is not None:
            self._program.number += 1
            self._program = None
        self._undo.close()

    def unmark(self) -> None:
        """Takes back what ZeRO-3 is told of the modules; for a model that no engine has been made of."""
        for module in self.modules:
            set_z3_leaf_module(module, False)
        for module, weight in self.extra.outside:
            unregister_external_parameter(module, weight)


class Forward:
    """What stands in the place of a module's forward. Its signature is that of the module's own."""

    def __init__(self, forward: Callable[..., Any], own: Callable[..., Any]) -> None:
        self._forward = forward
        self.__wrapped__ = own

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self._forward(*args, **keywords)

    def __deepcopy__(self, memo: Any) -> NoReturn:
        _refuse_copy("copied")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        _refuse_copy("pickled")


def stream(model: nn.Module, plan: Plan, kernels: Kernels, device: torch.device) -> StreamedModel:
    """Replaces the forwards of embedding, decoder layers and lm_head: in a `run`, each takes and returns a token.

    ZeRO-3 is told to gather a layer whole, so this comes before `deepspeed.initialize`. Knows no engine, process group,
    tracker or exit; weights may be sharded by ZeRO-3. Raises ParameterError for a model that is not the plan's.
    """
    dtype = DTYPES[plan.run["dtype"]]
    rotary = rotary_of(model, device)
    modules = decoder_layers(model, plan.code)
    layers = [bind_layer(module, number, plan, rotary, dtype, kernels.fused) for number, module in enumerate(modules)]
    emitted = EmittedGradients()
    extra = bind_engine(model, plan, kernels, emitted, rotary, dtype)
    extra.documents = Documents() if plan.packing else None
    check_complete(model, layers, extra, plan.parameters)
    streamed = StreamedModel(model, layers, extra, emitted)
    _replace_forwards(streamed)
    for module in modules:
        set_z3_leaf_module(module, True)
    for module, weight in extra.outside:
        register_external_parameter(module, weight)
    return streamed


def _replace_forwards(streamed: StreamedModel) -> None:
    extra = streamed.extra
    embed_weights = [weight.parameter for weight in extra.embed_weights]
    head_weights = [weight.parameter for weight in extra.head_weights]
    _run_turns_in(extra.embed_module, streamed, lambda token: autograd.embed(token, streamed.program, embed_weights))
    _run_turns_in(extra.head_module, streamed, lambda token: autograd.head(token, streamed.program, head_weights))
    for number, layer in enumerate(streamed.layers):
        _run_turns_in(layer.module, streamed, _layer_turns(number, layer, streamed))


def _layer_turns(number: int, layer: LayerBinding, streamed: StreamedModel) -> Callable[[Tensor], Tensor]:
    weights = [weight.parameter for weight in layer.weights]
    return lambda token: autograd.layer(token, streamed.program, number, weights)


def _run_turns_in(module: nn.Module, streamed: StreamedModel, turns: Callable[[Tensor], Tensor]) -> None:
    own = module.forward

    def forward(*args: Any, **keywords: Any) -> Any:
        return (turns if streamed.is_running else own)(*args, **keywords)

    streamed.replace_forward(module, forward)


def _restore_forward(module: nn.Module, instance_forward: Any) -> None:
    """`instance_forward`: what the module itself had; None where it was its class's."""
    del module.forward
    if instance_forward is not None:
        module.forward = instance_forward


def _refuse_copy(what: str) -> NoReturn:
    raise CopiedModelError(
        f"a streamed model cannot be {what}: forwards of the copy would run on this one's weights",
        "call unstream() first, or save its weights: save_pretrained, state_dict, the engine's save_checkpoint",
    )
