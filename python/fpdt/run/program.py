"""Ties the turns of a plan to the modules of a model: what each autograd function runs, and what it hands back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fpdt.attention import Documents
from fpdt.data.batch import Batch
from fpdt.errors import ScheduleError
from fpdt.models.base import EngineBinding, LayerBinding
from fpdt.run.context import Bound, Weights
from fpdt.run.parameters import WeightSlice, cast_gradients

LOSS_SUM = "lossSum"
"""Name of the buffer that the loss ops add to."""
EVALUATION_LOSS_SUM = "lossSum.evaluate"
"""The same, of the program that evaluates."""


class TurnRunner(Protocol):
    """What a program needs of the Executor."""

    def begin_micro_step(self) -> None: ...

    def begin_documents(self, documents: Documents) -> None: ...
    def begin_evaluation(self) -> None: ...

    def run_turn(self, module: str, direction: str, layer: int | None, bound: Bound) -> None: ...

    def finish(self, bound: Bound) -> None: ...

    def buffer(self, name: str) -> Tensor: ...


class EmittedGradients:
    """Takes what the one emitGrads op of a turn emits, cast once into the weights' dtype."""

    def __init__(self) -> None:
        self._slices: Sequence[WeightSlice] = ()
        self._gradients: list[Tensor] | None = None
        self.watch: Callable[[Tensor], None] | None = None
        """Told every region, before it is cast."""

    def expect(self, slices: Sequence[WeightSlice]) -> None:
        self._slices, self._gradients = slices, None

    def __call__(self, region: Tensor) -> None:
        if self._gradients is not None:
            raise RuntimeError("a second emitGrads in one turn")
        if self.watch is not None:
            self.watch(region)
        self._gradients = cast_gradients(self._slices, region)

    def take(self) -> list[Tensor]:
        gradients, self._gradients = self._gradients, None
        if gradients is None:
            raise RuntimeError("a backward turn ended without emitGrads")
        return gradients


@dataclass(frozen=True)
class LossScale:
    """How a rank's sum of token losses becomes the loss that DeepSpeed averages: see `factor`.

    DeepSpeed divides by the number of ranks (no mpu is given) and by the accumulation steps, and multiplies by
    `loss_scale`. `weight_sum` is that of the target tokens of the whole optimizer step, or how many they are.
    """

    world_size: int
    accumulation_steps: int
    loss_scale: float
    weight_sum: float

    @property
    def factor(self) -> float:
        """The rank's loss per unit of its sum of token losses."""
        return self.world_size * self.accumulation_steps / self.weight_sum

    @property
    def upstream(self) -> float:
        """The gradient that DeepSpeed gives to the rank's loss."""
        return self.loss_scale / self.accumulation_steps

    @property
    def gradient_factor(self) -> float:
        """The gradient of the scaled loss per unit of the sum: what the loss op forms its gradients with."""
        return self.factor * self.upstream

    def loss_of(self, loss_sum: Tensor) -> Tensor:
        return loss_sum * self.factor


class Scale(Protocol):
    """How a rank's sum of token losses becomes the loss that its caller gets."""

    @property
    def upstream(self) -> float:
        """The gradient that the loss is expected to get."""

    @property
    def gradient_factor(self) -> float:
        """What the loss op forms the gradients of the rank's sum with, for a loss that gets that gradient."""

    def loss_of(self, loss_sum: Tensor) -> Tensor:
        """Scalar in, scalar out."""


NO_SCALE = LossScale(1, 1, 1.0, 1)
"""Of a loss that is the sum itself."""


class Program:
    """The turns of a plan, bound to the modules of a model; implements autograd.Turns."""

    def __init__(
        self,
        executor: TurnRunner,
        layers: Sequence[LayerBinding],
        engine: EngineBinding,
        emitted: EmittedGradients,
        weights: Weights,
    ) -> None:
        self._executor, self._weights = executor, weights
        self._layers, self._engine, self._emitted = layers, engine, emitted
        self._optimizer_step: Callable[[], None] | None = None
        self._bound = Bound(layers, engine, weights, self._run_optimizer_step)
        self._read_batch: Callable[[], Batch] | None = None
        self.number = 0
        """Of the forward that began last, whose hidden states the arenas hold."""
        self._scale: Scale = NO_SCALE
        self._loss_sum = LOSS_SUM
        self._same_upstream = False
        self._upstream: Tensor | None = None
        """The last gradient of a loss that was read."""
        self.last_upstream = 1.0
        """Its value."""
        self.num_differing_upstreams = torch.zeros(())
        """Micro-steps since then, on the device, whose loss got another gradient: theirs are wrong."""

    def begin_micro_step(self, read_batch: Callable[[], Batch], scale: Scale, *, same_upstream: bool = False) -> None:
        """What the next forward and backward train on, and the scale of their loss.

        `same_upstream`: the loss gets the gradient that the last one got, which the host then need not read; whoever
        says so looks at `num_differing_upstreams` later.
        """
        self._executor.begin_micro_step()
        self.number += 1
        self._same_upstream = same_upstream
        self._read_batch, self._scale, self._loss_sum = read_batch, scale, LOSS_SUM
        self._engine.loss_factor = scale.gradient_factor

    def begin_evaluation(self, read_batch: Callable[[], Batch], scale: Scale = NO_SCALE) -> None:
        """What the next forward evaluates. No backward follows it."""
        self._executor.begin_evaluation()
        self.number += 1
        self._read_batch, self._scale, self._loss_sum = read_batch, scale, EVALUATION_LOSS_SUM

    def finish_step(self, optimizer_step: Callable[[], None]) -> None:
        """The plan's end of a step, after the last micro-step; it calls `optimizer_step`.

        Raises ScheduleError when the plan leaves the step to its caller, as plans for other people's loops do.
        """
        self._optimizer_step = optimizer_step
        self._executor.finish(self._bound)
        if self._optimizer_step is not None:
            raise ScheduleError("the end of the plan's program has no optimizerStep", "plan for `fpdt run`")

    @property
    def local_loss_sum(self) -> Tensor:
        """This rank's sum of token losses of the last forward, unscaled, fp32 [1]; a copy."""
        return self._executor.buffer(self._loss_sum).clone()

    @property
    def documents(self) -> Documents | None:
        """Of the micro-step, with what attention did so far; None for a plan that is not made for packing."""
        return self._engine.documents

    def forward(self, module: str, layer: int | None = None) -> None:
        if module == "embed":
            self._take_batch()
        self._run(module, "forward", layer)

    def backward(self, module: str, layer: int | None = None) -> list[Tensor]:
        slices = {"embed": self._engine.embed_weights, "head": self._engine.head_weights}
        self._emitted.expect(slices[module] if layer is None else self._layers[layer].weights)
        self._run(module, "backward", layer)
        return self._emitted.take()

    def loss(self) -> tuple[Tensor, float]:
        self._run("head", "forward", None)
        return self._scale.loss_of(self.local_loss_sum[0]), self._scale.upstream

    def loss_backward(self, upstream: Tensor, assumed: float) -> list[Tensor]:
        if self._same_upstream and self._upstream is not None:
            self.num_differing_upstreams = self.num_differing_upstreams + (upstream != self._upstream)
        else:
            self.last_upstream = float(upstream)
            quotient = self.last_upstream / assumed
            # Half a unit in the last place of fp32 is what the division by the accumulation steps may cost.
            is_one = math.isclose(quotient, 1.0, rel_tol=torch.finfo(torch.float32).eps)
            self._engine.quotient = 1.0 if is_one else quotient
            self._upstream, self.num_differing_upstreams = upstream, torch.zeros_like(upstream)
        return self.backward("head")

    def _run_optimizer_step(self) -> None:
        step, self._optimizer_step = self._optimizer_step, None
        if step is None:
            raise ScheduleError("optimizerStep ran outside of the end of a step, or twice in it")
        step()

    def _run(self, module: str, direction: str, layer: int | None) -> None:
        if layer is not None:
            self._weights.check_others(layer)
        self._executor.run_turn(module, direction, layer, self._bound)

    def _take_batch(self) -> None:
        """Read when it is needed, so that what the rank waits for before its forward does not delay it."""
        if self._read_batch is None:
            raise RuntimeError("a forward ran before begin_micro_step")
        batch = self._read_batch()
        self._engine.batch = batch.tables
        if self._engine.documents is not None:
            self._engine.documents.begin(batch.document_starts)
            self._executor.begin_documents(self._engine.documents)
