"""What the loss of each optimizer step is multiplied by, once, and its gradients are divided by before the update.

fp16 has DeepSpeed's own scale, dynamic or static; every other dtype the run's static one.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from deepspeed.runtime.base_optimizer import ZeROOptimizer
from torch import Tensor

from fpdt.errors import FpdtError
from fpdt.plan import Plan


class LossScaleError(FpdtError):
    """A loss scale that the optimizer of this configuration cannot take, or that cannot get any smaller."""


class LossScaling(Protocol):
    @property
    def current(self) -> float:
        """The scale of the step that is running, or else of the next: known before its first forward."""

    def scale_loss(self, loss: Tensor) -> Tensor:
        """What to give to DeepSpeed's backward."""

    def unscale_gradients(self) -> None:
        """To be called once before a step, for what DeepSpeed does not divide."""


def make_loss_scaling(optimizer: Any, plan: Plan) -> LossScaling:
    if plan.run["dtype"] == "float16":
        return HalfLossScale(optimizer)
    return StaticLossScale(optimizer, float(plan.run["lossScale"]))


class StaticLossScale:
    """The run's loss scale. DeepSpeed has one of its own for fp16 only, so it is set on its optimizer from outside.

    ZeRO's optimizers (stages 1 to 3) multiply the loss and divide gradients by `override_loss_scale`. Stage 0 in fp32
    steps a plain torch optimizer, for which both are done here.
    """

    def __init__(self, optimizer: Any, scale: float) -> None:
        self.current = scale
        self._own = 1.0
        self._optimizer = optimizer
        if scale == 1.0:
            return
        if hasattr(optimizer, "override_loss_scale"):
            optimizer.override_loss_scale(scale)
        elif isinstance(optimizer, torch.optim.Optimizer):
            self._own = scale
        else:
            raise LossScaleError(
                f"{type(optimizer).__name__} takes no loss scale from outside, and the run's is {scale:g}",
                "plan with lossScale 1, or with ZeRO stage 1, 2 or 3",
            )

    def scale_loss(self, loss: Tensor) -> Tensor:
        return loss if self._own == 1.0 else loss * self._own

    def unscale_gradients(self) -> None:
        if self._own == 1.0:
            return
        for group in self._optimizer.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.grad.div_(self._own)


class HalfLossScale:
    """The scale that DeepSpeed's optimizer for fp16 keeps, with two mends of version 0.19.8.

    Its engine multiplies the loss for ZeRO's optimizers only (`scale_if_loss`), while those of stage 0 divide by the
    scale too. And every optimizer moves on to the next step's scale before it divides this step's gradients by it, so
    that they are halved in each step after which the scale grows.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._scales_loss = not isinstance(optimizer, ZeROOptimizer)
        self._update_after_step()

    @property
    def current(self) -> float:
        of_stage_0 = getattr(self._optimizer, "loss_scale_config", None)
        return float(self._optimizer.cur_scale if of_stage_0 is None else of_stage_0.cur_scale)

    def scale_loss(self, loss: Tensor) -> Tensor:
        return loss * self.current if self._scales_loss else loss

    def unscale_gradients(self) -> None:
        """DeepSpeed does, in fp32, with the clipping."""

    def _update_after_step(self) -> None:
        optimizer = self._optimizer
        update, step = optimizer._update_scale, optimizer.step
        overflows: list[bool] = []

        def step_then_update(*args: Any, **keywords: Any) -> Any:
            result = step(*args, **keywords)
            while overflows:
                self._update(update, overflows.pop())
            return result

        optimizer._update_scale, optimizer.step = overflows.append, step_then_update

    def _update(self, update: Any, has_overflow: bool) -> None:
        try:
            update(has_overflow)
        except Exception as error:
            # The one thing that DeepSpeed's scaler raises, as a plain Exception: it is at min_loss_scale.
            raise LossScaleError(
                f"gradients are not finite in fp16 at loss scale {self.current:g}, the smallest that is allowed",
                "train in bfloat16, with a lower learning rate, or with a smaller fp16.min_loss_scale",
            ) from error
