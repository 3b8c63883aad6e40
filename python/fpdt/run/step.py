"""One optimizer step: micro-steps through the DeepSpeed engine, the loss of all ranks, and what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from fpdt.errors import DataError, ScheduleError, StopAgreed
from fpdt.plan import Plan
from fpdt.run.engine import StreamedEngine
from fpdt.run.gradients import dump_gradients
from fpdt.run.non_finite import Finding, NonFinitePolicy, NonFiniteWatch, skip_update, stop_for
from fpdt.run.planned_batches import BatchSource, PlannedBatches
from fpdt.run.program import LossScale


@dataclass(frozen=True)
class StepOutcome:
    """`loss` is the mean over the `num_tokens` target tokens of all ranks, by their weights; `non_finite` names what is
    NaN or inf.

    `learning_rate` is that of the update, `gradient_norm` of all ranks' gradients before clipping; None where there is
    none: DeepSpeed forms no norm in some of its settings.
    `skipped`: DeepSpeed left the weights as they were, because a gradient of some rank was not finite.
    """

    loss: float
    learning_rate: float | None
    gradient_norm: float | None
    num_tokens: int
    loss_scale: float
    skipped: bool
    non_finite: list[str] = field(default_factory=list)
    non_finite_place: str | None = None
    """Where the first of them came from, as far as somebody looked."""


class StepRunner:
    """Runs optimizer steps of a plan on one rank."""

    def __init__(
        self,
        plan: Plan,
        engine: StreamedEngine,
        batches: BatchSource,
        dump_grads: Path | None,
        before_micro_step: Callable[[], None] | None = None,
        before_update: Callable[[], None] | None = None,
        watch: tuple[NonFiniteWatch, NonFinitePolicy] | None = None,
    ) -> None:
        self._plan, self._engine = plan, engine
        self._before_micro_step, self._before_update = before_micro_step, before_update
        self._batches, self._dump_grads, self._watch = PlannedBatches(plan, batches), dump_grads, watch
        self._finding: Finding | None = None
        self._accumulation_steps = int(plan.run["gradientAccumulationSteps"])
        self.is_stopping = False
        """Set where no further step is to begin; told to the other ranks with the count of a step's tokens."""

    def run(self, step: int) -> StepOutcome:
        """A collective: every rank runs the same steps in the same order. Raises StopAgreed, then on all ranks."""
        num_tokens, weight_sum = self._count_tokens(step)
        loss_scale = self._engine.loss_scale.current
        # The schedule moves on with the update.
        learning_rate = self._learning_rate()
        scale = LossScale(self._plan.world_size, self._accumulation_steps, loss_scale, weight_sum)
        loss_sum = torch.zeros(1, dtype=torch.float64, device=self._engine.device)
        for micro_step in range(self._accumulation_steps):
            loss_sum += self._run_micro_step(step, micro_step, scale)
        loss = self._all_ranks(loss_sum) / weight_sum
        skipped = not self._engine.deepspeed.was_step_applied()
        norm, place = self._gradient_norm(), None if self._finding is None else self._finding.place
        non_finite = self._non_finite(loss, norm)
        return StepOutcome(loss, learning_rate, norm, num_tokens, loss_scale, skipped, non_finite, place)

    def _all_ranks(self, loss_sum: Tensor) -> float:
        """Sum of token losses of all ranks. Raises ScheduleError where some micro-step's gradients are wrong."""
        totals = torch.cat([loss_sum, self._engine.program.num_differing_upstreams.double().reshape(1)])
        dist.all_reduce(totals)
        total, num_differing = totals.tolist()
        if num_differing:
            raise ScheduleError(
                "DeepSpeed scaled the losses of a step's micro-steps differently", "report this DeepSpeed version"
            )
        return float(total)

    def _run_micro_step(self, step: int, micro_step: int, scale: LossScale) -> Tensor:
        """Forward, backward and DeepSpeed's step; this rank's sum of token losses."""
        engine = self._engine
        if self._before_micro_step is not None:
            self._before_micro_step()
        if self._watch is not None:
            self._watch[0].begin_micro_step(micro_step)
        engine.program.begin_micro_step(
            lambda: self._batches.read(step, micro_step), scale, same_upstream=micro_step > 0
        )
        loss = engine.forward()
        loss_sum = engine.program.local_loss_sum
        engine.backward(loss)
        if micro_step == self._accumulation_steps - 1:
            engine.program.finish_step(lambda: self._update(step, scale))
        else:
            engine.deepspeed.step()
        return loss_sum

    def _update(self, step: int, scale: LossScale) -> None:
        """What the plan's optimizerStep asks for."""
        if self._dump_grads is not None:
            dump_gradients(self._engine.model, self._dump_grads, step, scale.loss_scale)
        if self._before_update is not None:
            self._before_update()
        self._finding = self._look(step)
        if self._finding is None:
            self._engine.step()
        else:
            skip_update(self._engine.deepspeed)

    def _look(self, step: int) -> Finding | None:
        """Raises NonFiniteError where the run is to stop for what is found."""
        if self._watch is None:
            return None
        watch, policy = self._watch
        finding = watch.look(partial(self._batches.name, step))
        if finding is not None and policy == "stop":
            raise stop_for(finding, step)
        return finding

    def _count_tokens(self, step: int) -> tuple[int, float]:
        """Target tokens of all ranks and micro-steps, and the sum of their weights, which scales every gradient.

        Both before the first micro-step; in fp64, which counts exactly.
        """
        counts = torch.zeros(3, dtype=torch.float64)
        for micro_step in range(self._accumulation_steps):
            batch = self._batches.read(step, micro_step)
            counts[:2] += torch.tensor([batch.num_valid, batch.weight_sum], dtype=torch.float64)
        counts[2] = int(self.is_stopping)
        counts = counts.to(self._engine.device)
        dist.all_reduce(counts)
        num_tokens, weight_sum, num_stopping = counts.tolist()
        if num_stopping > 0:
            raise StopAgreed
        if num_tokens == 0:
            raise DataError(f"step {step} has no target token", "give data with labels")
        if weight_sum == 0:
            raise DataError(
                f"the {num_tokens:.0f} target tokens of step {step} all have weight 0", "give some a weight"
            )
        return int(num_tokens), weight_sum

    def _learning_rate(self) -> float | None:
        """Of the first group of weights; fpdt makes one."""
        rates = self._engine.deepspeed.get_lr()
        return float(rates[0]) if rates else None

    def _gradient_norm(self) -> float | None:
        norm = self._engine.deepspeed.get_global_grad_norm()
        return None if norm is None else float(norm)

    def _non_finite(self, loss: float, norm: float | None) -> list[str]:
        values = {"loss": loss, "gradientNorm": 0.0 if norm is None else norm}
        names = [name for name, value in values.items() if not math.isfinite(value)]
        return names if self._finding is None or self._finding.what in names else [*names, self._finding.what]
