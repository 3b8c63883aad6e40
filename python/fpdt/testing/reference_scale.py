"""The loss scale of a reference run in fp16, moved as DeepSpeed 0.19.8 moves it and written again from its sources.

runtime/fp16/loss_scaler.py: DynamicLossScaler for ZeRO stages 1 to 3; for stage 0 LossScaleConfig, which the optimizers
beside it (`_update_scale`) halve at every overflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fpdt.plan import Plan


class ReferenceScale:
    """`current` multiplies the loss. Without `fp16` it is 1 for ever, and every step is taken."""

    def __init__(self, fp16: Mapping[str, Any] | None, stage: int) -> None:
        given = fp16 or {}
        static = float(given.get("loss_scale", 0))
        self._skips = fp16 is not None
        self._is_dynamic = self._skips and static == 0
        self.current = 1.0 if fp16 is None else static or 2.0 ** int(given.get("initial_scale_power", 16))
        self._window, self._least = int(given.get("loss_scale_window", 1000)), float(given.get("min_loss_scale", 1))
        self._hysteresis = 1 if stage == 0 else int(given.get("hysteresis", 2))
        self._refills = bool(given.get("consecutive_hysteresis", False))
        self._left, self._step, self._last_overflow = self._hysteresis, 0, -1

    def update(self, is_finite: bool) -> bool:
        """At the end of a step: whether it is taken. Moves on to the scale of the next."""
        if self._is_dynamic:
            self._keep_up() if is_finite else self._give_way()
            self._step += 1
        return is_finite or not self._skips

    def _give_way(self) -> None:
        if self._left == 1:
            self.current = max(self.current / 2, self._least)
        else:
            self._left -= 1
        self._last_overflow = self._step

    def _keep_up(self) -> None:
        if self._refills:
            self._left = self._hysteresis
        steps = self._step - self._last_overflow - 1
        if steps > 0 and steps % self._window == 0:
            self._left = self._hysteresis
            self.current *= 2


def make_reference_scale(plan: Plan, dtype: torch.dtype) -> ReferenceScale:
    fp16 = plan.deepspeed.get("fp16", {}) if dtype == torch.float16 else None
    return ReferenceScale(fp16, int(plan.run["zeroStage"]))
