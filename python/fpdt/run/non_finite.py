"""NaN and infinity in the loss or in gradients: found before the weights change, with their rank and place in the data.

Each rank keeps four numbers on its device while a step runs: its sum of losses, the first row whose loss is not finite,
its largest gradient and the first micro-step in which one was not finite. They are put together and read once, before
the update.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.fp16.fused_optimizer import FP16_Optimizer
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch import Tensor

from fpdt.data.rows import Share
from fpdt.errors import FpdtError
from fpdt.models.base import EngineBinding
from fpdt.plan import Plan
from fpdt.run.program import EmittedGradients
from fpdt.wire.protocol import NonFinitePolicy

__all__ = ["Finding", "NonFiniteError", "NonFinitePolicy", "NonFiniteWatch", "skip_update", "stop_for"]

NONE = 2.0**52
"""Past every row and micro-step; exact in fp64."""
LABEL_BYTES = 8


class NonFiniteError(FpdtError):
    """The loss or a gradient of a step is NaN or infinite, and the run was asked to stop then."""


@dataclass(frozen=True)
class Finding:
    """`place`: the rank, the micro-step, of a loss the position in its sequence, and what stands there in the data."""

    what: Literal["loss", "gradient"]
    place: str


NameOf = Callable[[int, int, int | None], str]
"""What stands in the data, by micro-step, number of the sequence in it and position; None: all of the sequence."""


class NonFiniteWatch:
    """Of one rank. Gradients in fp16 are left to DeepSpeed, which finds and skips them by itself."""

    def __init__(self, plan: Plan, engine: EngineBinding, emitted: EmittedGradients, labels: Tensor, rank: int) -> None:
        self._plan, self._rank, self._labels = plan, rank, labels
        self._found = torch.zeros(4, dtype=torch.float64, device=labels.device)
        self._micro_step = 0
        engine.watch_losses = self._watch_losses
        if plan.run["dtype"] != "float16":
            emitted.watch = self._watch_gradients

    def begin_micro_step(self, micro_step: int) -> None:
        self._micro_step = micro_step
        if micro_step == 0:
            self._found.copy_(torch.tensor([0.0, NONE, 0.0, NONE], dtype=torch.float64))

    def look(self, name_of: NameOf) -> Finding | None:
        """What is wrong with the step that all micro-steps were run of; a collective, the same on all ranks."""
        everybody = torch.zeros(self._plan.world_size, 4, dtype=torch.float64, device=self._found.device)
        everybody[self._rank] = self._found
        dist.all_reduce(everybody)
        rows = everybody.tolist()
        # A sum of tensors of zeros beside one that is not finite is that one, rank by rank.
        for rank, (loss_sum, row, _, _) in enumerate(rows):
            if not math.isfinite(loss_sum):
                return Finding("loss", self._place_of_row(rank, row, name_of))
        for rank, (_, _, largest, micro_step) in enumerate(rows):
            if not math.isfinite(largest):
                return Finding("gradient", self._place_of_sequence(rank, int(micro_step), name_of))
        return None

    def _watch_losses(self, losses: Tensor, labels: Tensor) -> None:
        """Losses of consecutive rows, whose labels are a view of the table."""
        first = (labels.data_ptr() - self._labels.data_ptr()) // LABEL_BYTES + self._micro_step * self._labels.numel()
        rows = torch.arange(first, first + losses.numel(), device=losses.device, dtype=torch.float64)
        bad = torch.where(torch.isfinite(losses), NONE, rows).min()
        self._found[0] += losses.sum()
        self._found[1].copy_(torch.minimum(self._found[1], bad))

    def _watch_gradients(self, region: Tensor) -> None:
        # The largest of numbers is NaN where one of them is.
        largest = torch.linalg.vector_norm(region, ord=math.inf)
        self._found[2].copy_(torch.maximum(self._found[2], largest.to(torch.float64)))
        bad = torch.where(torch.isfinite(largest), NONE, float(self._micro_step)).to(torch.float64)
        self._found[3].copy_(torch.minimum(self._found[3], bad))

    def _place_of_row(self, rank: int, row: float, name_of: NameOf) -> str:
        """`rank 1, position 96 of sequence 0 in micro-step 0 (line 7 of a.jsonl)`; only a sum may have overflowed."""
        if row >= NONE:
            return f"rank {rank}"
        share = Share.of_rank(self._plan, rank)
        micro_step, local = divmod(int(row), self._labels.numel())
        position = int(share.rows()[local])
        name = name_of(micro_step, share.data_rank, position)
        return f"rank {rank}, position {position} of sequence {share.data_rank} in micro-step {micro_step} ({name})"

    def _place_of_sequence(self, rank: int, micro_step: int, name_of: NameOf) -> str:
        """`rank 1, sequence 0 in micro-step 0 (line 7 and line 9 of a.jsonl)`: all its tokens share the gradients."""
        sequence = Share.of_rank(self._plan, rank).data_rank
        name = name_of(micro_step, sequence, None)
        return f"rank {rank}, sequence {sequence} in micro-step {micro_step} ({name})"


def stop_for(finding: Finding, step: int) -> NonFiniteError:
    return NonFiniteError(
        f"the {finding.what} of step {step} is not finite: {finding.place}",
        "look at the data there, lower the learning rate, or take --on-non-finite skip",
    )


def skip_update(engine: Any) -> None:
    """DeepSpeed's step without an update: gradients are dropped as where it finds an overflow itself."""
    optimizer = engine.optimizer
    own = vars(optimizer).get("step")
    is_plain = isinstance(optimizer, torch.optim.Optimizer)
    optimizer.step = lambda *_, **__: _discard(optimizer)
    try:
        engine.step()
    finally:
        if own is None:
            del optimizer.step
        else:
            optimizer.step = own
        if is_plain:
            del optimizer.overflow


def _discard(optimizer: Any) -> None:
    if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        optimizer._pre_step()
        optimizer._partition_all_parameters()
        optimizer._overflow_clean_up(optimizer.loss_scale)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
    elif isinstance(optimizer, DeepSpeedZeroOptimizer):
        optimizer.zero_grad(set_to_none=True)
        optimizer._release_preflattened_grad_buffers()
        if optimizer.cpu_offload:
            optimizer.reset_cpu_buffers()
        else:
            for group in optimizer.averaged_gradients:
                optimizer.averaged_gradients[group] = optimizer.all_grad_tensors[group] = None
    elif isinstance(optimizer, BF16_Optimizer):
        optimizer.clear_hp_grads()
        optimizer.clear_lp_grads()
    elif isinstance(optimizer, FP16_Optimizer | FP16_UnfusedOptimizer):
        optimizer.zero_grad(set_to_none=True)
    # The engine drops the gradients of a plain optimizer, which has no norm of them.
    optimizer.overflow = True
    if not isinstance(optimizer, torch.optim.Optimizer):
        optimizer._global_grad_norm = math.inf
