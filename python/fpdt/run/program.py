"""Ties the sections of a plan to the modules of a model: what each autograd function runs, and what it hands back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fpdt.models.base import EngineBinding, LayerBinding
from fpdt.plan import Plan
from fpdt.run.context import Bound
from fpdt.run.parameters import WeightSlice, cast_gradients


class PartRunner(Protocol):
    """What a program needs of the Executor."""

    def run_part(self, section_name: str, part_index: int, *, segment: int, layer: int, bound: Bound) -> None: ...

    def buffer(self, name: str) -> Tensor: ...


class Weights(Protocol):
    """What a program needs of ZeRO: zero.LayerWeights."""

    def gather(self, layer: int) -> None: ...

    def release(self, layer: int) -> None: ...

    def check_others(self, layer: int) -> None: ...


class EmittedGradients:
    """Takes what the one emitGrads op of a part emits, cast once into the weights' dtype."""

    def __init__(self) -> None:
        self._slices: Sequence[WeightSlice] = ()
        self._gradients: list[Tensor] | None = None

    def expect(self, slices: Sequence[WeightSlice]) -> None:
        self._slices, self._gradients = slices, None

    def __call__(self, layer_slot: int, region: Tensor) -> None:
        if self._gradients is not None:
            raise RuntimeError(f"a second emitGrads in one part, for layer slot {layer_slot}")
        self._gradients = cast_gradients(self._slices, region)

    def take(self) -> list[Tensor]:
        gradients, self._gradients = self._gradients, None
        if gradients is None:
            raise RuntimeError("a backward part ended without emitGrads")
        return gradients


@dataclass(frozen=True)
class LossScale:
    """How a rank's sum of token losses becomes the loss that DeepSpeed averages: see `factor`.

    DeepSpeed divides by the number of ranks (no mpu is given) and by the accumulation steps, and multiplies by
    `static_scale`. `num_valid` counts the target tokens of the whole optimizer step.
    """

    world_size: int
    accumulation_steps: int
    static_scale: float
    num_valid: int

    @property
    def factor(self) -> float:
        """The rank's loss per unit of its sum of token losses."""
        return self.world_size * self.accumulation_steps / self.num_valid

    @property
    def upstream(self) -> float:
        """The gradient that DeepSpeed gives to the rank's loss."""
        return self.static_scale / self.accumulation_steps

    @property
    def gradient_factor(self) -> float:
        """The gradient of the scaled loss per unit of the sum: what the loss op forms its gradients with."""
        return self.factor * self.upstream


class Program:
    """The sections of a plan, bound to the modules of a model; implements autograd.Sections."""

    def __init__(
        self,
        plan: Plan,
        executor: PartRunner,
        layers: Sequence[LayerBinding],
        extra: EngineBinding,
        emitted: EmittedGradients,
        weights: Weights,
    ) -> None:
        self._plan, self._executor, self._weights = plan, executor, weights
        self._layers, self._extra, self._emitted = layers, extra, emitted
        self._load_batch: Callable[[], None] = _no_batch
        self._scale = LossScale(1, 1, 1.0, 1)
        self._parts = {
            (name, part.layer_slot): index
            for name in ("layerForward", "layerBackward")
            for index, part in enumerate(plan.sections[name].parts)
        }
        self._bounds = [self._bind(segment) for segment in range(plan.num_segments)]

    def begin_micro_step(self, load_batch: Callable[[], None], scale: LossScale) -> None:
        """What the next forward and backward train on, and the scale of their loss."""
        self._load_batch, self._scale = load_batch, scale
        self._extra.loss_factor = scale.gradient_factor

    @property
    def local_loss_sum(self) -> Tensor:
        """This rank's sum of token losses of the last forward, unscaled, fp32 [1]; a copy."""
        return self._executor.buffer("lossSum").clone()

    def embed_forward(self) -> None:
        self._run("embedForward", 0, 0, 0)

    def embed_backward(self) -> list[Tensor]:
        return self._run_backward("embedBackward", 0, self._extra.embed_weights)

    def layer_forward(self, layer: int) -> None:
        self._run_layer("layerForward", layer)

    def layer_backward(self, layer: int) -> list[Tensor]:
        self._emitted.expect(self._layers[layer].weights)
        self._run_layer("layerBackward", layer)
        return self._emitted.take()

    def loss_forward(self) -> tuple[Tensor, float]:
        self._run("lossForwardBackward", 0, 0, 0)
        return self.local_loss_sum[0] * self._scale.factor, self._scale.upstream

    def loss_backward(self, quotient: float) -> list[Tensor]:
        # Half a unit in the last place of fp32 is what the division by the accumulation steps may cost.
        if not math.isclose(quotient, 1.0, rel_tol=torch.finfo(torch.float32).eps):
            for name in ("dx", "wgradHead"):
                self._executor.buffer(name).mul_(quotient)
        return self._run_backward("lossForwardBackward", 1, self._extra.head_weights)

    def _run_backward(self, section: str, part: int, slices: Sequence[WeightSlice]) -> list[Tensor]:
        self._emitted.expect(slices)
        self._run(section, part, 0, 0)
        return self._emitted.take()

    def _run_layer(self, section: str, layer: int) -> None:
        self._weights.check_others(layer)
        segment, slot = divmod(layer, self._plan.segment_layers)
        self._run(section, self._parts[section, slot], segment, layer)

    def _run(self, section: str, part: int, segment: int, layer: int) -> None:
        self._executor.run_part(section, part, segment=segment, layer=layer, bound=self._bounds[segment])

    def _bind(self, segment: int) -> Bound:
        first = segment * self._plan.segment_layers
        layers: Mapping[int, LayerBinding] = {
            slot: self._layers[first + slot] for slot in range(self._plan.segment_layers)
        }
        return Bound(
            layers=layers,
            extra=self._extra,
            gather=lambda slot: self._weights.gather(first + slot),
            release=lambda slot: self._weights.release(first + slot),
            load_batch=lambda: self._load_batch(),
        )


def _no_batch() -> None:
    raise RuntimeError("a forward ran before begin_micro_step")
