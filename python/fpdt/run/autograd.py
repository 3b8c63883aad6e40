"""What autograd sees of a streamed model: a one-element token, one function per decoder layer, and the weights.

Hidden states and their gradients stay in the arenas. Every function runs one part of a section forward and one
backward, and its backward hands over the weight gradients of its group, each weight's once per micro-step.

The token lives on the device of the plan: autograd then runs all of a backward in one thread, where weight gradients
are accumulated before the layer's own backward hooks look at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Sections(Protocol):
    """Runs parts of sections; backward ones return the gradients of the weights their function was applied to."""

    def embed_forward(self) -> None: ...

    def embed_backward(self) -> Sequence[Tensor]: ...

    def layer_forward(self, layer: int) -> None: ...

    def layer_backward(self, layer: int) -> Sequence[Tensor]: ...

    def loss_forward(self) -> tuple[Tensor, float]:
        """The loss, and the upstream gradient of it that the gradients formed here assume."""

    def loss_backward(self, quotient: float) -> Sequence[Tensor]:
        """`quotient`: what the gradients formed in forward must be multiplied by."""


class StaleBackwardError(RuntimeError):
    """A second backward through the same forward: the arenas hold one."""


class _Once:
    """Refuses to run a backward twice; hidden states of the first are overwritten by then."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._is_done = False

    def enter(self) -> None:
        if self._is_done:
            raise StaleBackwardError(f"backward of {self._what} ran twice for one forward; run the forward again")
        self._is_done = True


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, sections: Sections, *weights: Tensor) -> Tensor:
        ctx.sections, ctx.once = sections, _Once("the embedding")
        sections.embed_forward()
        return torch.zeros_like(token)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.once.enter()
        return (torch.zeros_like(grads[0]), None, *ctx.sections.embed_backward())


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, sections: Sections, layer: int, *weights: Tensor) -> Tensor:
        ctx.sections, ctx.layer, ctx.once = sections, layer, _Once(f"layer {layer}")
        sections.layer_forward(layer)
        return torch.zeros_like(token)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.once.enter()
        return (torch.zeros_like(grads[0]), None, None, *ctx.sections.layer_backward(ctx.layer))


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, sections: Sections, *weights: Tensor) -> Tensor:
        loss, ctx.assumed = sections.loss_forward()
        ctx.sections, ctx.once, ctx.device = sections, _Once("the loss"), token.device
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.once.enter()
        quotient = float(grads[0]) / ctx.assumed
        return (torch.zeros(1, device=ctx.device), None, *ctx.sections.loss_backward(quotient))


def embed(token: Tensor, sections: Sections, weights: Sequence[Tensor]) -> Tensor:
    """Runs embedForward, and embedBackward in backward. Token in, token out."""
    return _apply(_Embed, token, sections, *weights)


def layer(token: Tensor, sections: Sections, number: int, weights: Sequence[Tensor]) -> Tensor:
    """Runs the layerForward part of decoder layer `number`, and its layerBackward part in backward."""
    return _apply(_Layer, token, sections, number, *weights)


def head(token: Tensor, sections: Sections, weights: Sequence[Tensor]) -> Tensor:
    """Runs lossForwardBackward: its first part here, its second in backward. Returns the rank's loss, a scalar."""
    return _apply(_Head, token, sections, *weights)


def _apply(function: type[torch.autograd.Function], *args: Any) -> Tensor:
    result: Tensor = function.apply(*args)  # type: ignore[no-untyped-call]
    return result
