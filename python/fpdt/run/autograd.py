"""What autograd sees of a streamed model: a one-element token, one function per decoder layer, and the weights.

Hidden states and their gradients stay in the arenas. Every function runs one turn of the program forward and one
backward, and its backward hands over the weight gradients of its module, each weight's once per micro-step.

The token lives on the device of the plan: autograd then runs all of a backward in one thread, where weight gradients
are accumulated before the layer's own backward hooks look at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from fpdt.run.executor import StaleBackwardError

__all__ = ["StaleBackwardError", "Turns", "embed", "head", "layer"]


class Turns(Protocol):
    """Runs turns; backward ones return the gradients of the weights that their function was applied to."""

    @property
    def number(self) -> int:
        """Of the forward that the arenas hold."""

    def forward(self, module: str, layer: int | None = None) -> None: ...

    def backward(self, module: str, layer: int | None = None) -> Sequence[Tensor]: ...

    def loss(self) -> tuple[Tensor, float]:
        """Runs the head's forward: the loss, and the upstream gradient of it that the gradients formed here assume."""

    def loss_backward(self, upstream: Tensor, assumed: float) -> Sequence[Tensor]:
        """`upstream`: the gradient of the loss, a scalar on the token's device; gradients were formed for `assumed`."""


class _Once:
    """Refuses to run a backward twice, or after another forward: what it needs is overwritten by then."""

    def __init__(self, what: str, turns: Turns) -> None:
        self._what, self._turns = what, turns
        self._number = turns.number
        self._is_done = False

    def enter(self) -> None:
        if self._is_done:
            raise StaleBackwardError(f"backward of {self._what} ran twice for one forward; run the forward again")
        if self._turns.number != self._number:
            raise StaleBackwardError(
                f"backward of {self._what} of forward {self._number}, and forward {self._turns.number} has run since",
                "run a loss's backward before the next forward or evaluation",
            )
        self._is_done = True


class _Module(torch.autograd.Function):
    """The embedding, or a decoder layer."""

    @staticmethod
    def forward(ctx: Any, token: Tensor, turns: Turns, module: str, layer: int | None, *weights: Tensor) -> Tensor:
        name = "the embedding" if layer is None else f"layer {layer}"
        ctx.turns, ctx.module, ctx.layer, ctx.once = turns, module, layer, _Once(name, turns)
        turns.forward(module, layer)
        return torch.zeros_like(token)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.once.enter()
        return (torch.zeros_like(grads[0]), None, None, None, *ctx.turns.backward(ctx.module, ctx.layer))


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, turns: Turns, *weights: Tensor) -> Tensor:
        loss, ctx.assumed = turns.loss()
        ctx.turns, ctx.once, ctx.device = turns, _Once("the loss", turns), token.device
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.once.enter()
        return (torch.zeros(1, device=ctx.device), None, *ctx.turns.loss_backward(grads[0], ctx.assumed))


def embed(token: Tensor, turns: Turns, weights: Sequence[Tensor]) -> Tensor:
    """Runs the embedding's turns. Token in, token out."""
    return _apply(_Module, token, turns, "embed", None, *weights)


def layer(token: Tensor, turns: Turns, number: int, weights: Sequence[Tensor]) -> Tensor:
    """Runs the turns of decoder layer `number`."""
    return _apply(_Module, token, turns, "layer", number, *weights)


def head(token: Tensor, turns: Turns, weights: Sequence[Tensor]) -> Tensor:
    """Runs the head's turns; returns the rank's loss, a scalar. `weights` are those that the head itself hands over:
    not a weight tied to the embedding, whose gradient the embedding's turn has."""
    return _apply(_Head, token, turns, *weights)


def _apply(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    result: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]
    return result
