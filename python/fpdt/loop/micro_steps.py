"""Forwards of a plan in somebody else's loop, one after the other: arenas, rows of a sample, and the loss's scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from fpdt.data.batch import PADDING_TOKEN, Batch
from fpdt.data.rows import Share
from fpdt.data.tokens import IGNORED_LABEL
from fpdt.devices import plan_runtime
from fpdt.devices.file_pool import FilePool
from fpdt.loop.call import Sample
from fpdt.ops import HANDLERS
from fpdt.plan import Plan
from fpdt.run.communicators import warm_up_collectives
from fpdt.run.executor import Executor
from fpdt.run.ranks import check_same_plan, given_group, present_ranks, sequence_group
from fpdt.run.stream import StreamedModel
from fpdt.run.warm_up import warm_up_ops
from fpdt.run.zero import LayerWeights


@dataclass(frozen=True)
class GroupScale:
    """The loss of a whole sample, the same on all ranks of its group, as if each had computed all of it.

    A rank's share of the gradient is formed times the number of ranks: DeepSpeed, which is not told of groups, takes
    the mean over all ranks.
    """

    divisor: float
    upstream: float
    group: dist.ProcessGroup | None

    @property
    def gradient_factor(self) -> float:
        num_ranks = 1 if self.group is None else self.group.size()
        return self.upstream * num_ranks / self.divisor

    def loss_of(self, loss_sum: Tensor) -> Tensor:
        total = loss_sum.clone()
        if self.group is not None:
            dist.all_reduce(total, group=self.group)
        return total / self.divisor


class MicroSteps:
    """What a streamed model has once its engine is there."""

    def __init__(
        self,
        plan: Plan,
        streamed: StreamedModel,
        device: torch.device,
        group: dist.ProcessGroup | None,
        files: Mapping[str, FilePool],
        closes: ExitStack,
    ) -> None:
        """A collective of all ranks. Raises RankError where they are not the plan's, or hold different plans."""
        ranks = present_ranks(plan, device)
        check_same_plan(plan, ranks)
        self.group = sequence_group(plan, ranks.rank) if group is None else given_group(plan, ranks.rank, group)
        """Of the ranks that share a sequence; None where each has its own."""
        if group is None and self.group is not None and self.group is not dist.group.WORLD:
            closes.callback(dist.destroy_process_group, self.group)
        warm_up_collectives(ranks, self.group)
        warm_up_ops(plan, streamed, device)
        runtime = plan_runtime(plan, self.group, device_index=ranks.local_rank, files=files)
        closes.callback(runtime.close)
        recorder = runtime.make_recorder(plan.kind_names, 0)
        recorder.begin_step(None, times_ops=False)
        executor = Executor(plan, runtime, HANDLERS, recorder)
        self._program = streamed.attach(executor, LayerWeights(streamed.model, streamed.modules, plan.deepspeed))
        self._streamed, self._device = streamed, device
        self._rows = torch.from_numpy(Share.of_rank(plan, ranks.rank).rows())
        self._has_evaluation = bool(plan.evaluation_turns)
        self._upstream = 1.0

    def run(self, sample: Sample) -> Tensor:
        """Its loss. Where gradients are on, a backward may follow before the next run; else training is not touched.

        The loss op forms gradients in forward, for the gradient that the last loss got: loops and engines scale losses
        by accumulation steps, processes or loss scales, the same each time. Where it is another, it is rescaled.
        """
        program, wants_gradient = self._program, torch.is_grad_enabled()
        if math.isfinite(program.last_upstream) and program.last_upstream != 0:
            self._upstream = program.last_upstream
        scale = GroupScale(sample.divisor, self._upstream, self.group)
        batch = rows_of(sample, self._rows)
        if wants_gradient or not self._has_evaluation:
            program.begin_micro_step(lambda: batch, scale)
        else:
            program.begin_evaluation(lambda: batch, scale)
        # Made here, so that engines see the user's inputs alone; it requires grad for ZeRO's backward hooks.
        return self._streamed.run(torch.zeros(1, device=self._device, requires_grad=wants_gradient))


def rows_of(sample: Sample, rows: Tensor) -> Batch:
    """A rank's rows of a sample; `rows` are their numbers, ascending, those after its end padding."""
    local = rows[rows < len(sample.token_ids)]
    token_ids, labels = torch.full_like(rows, PADDING_TOKEN), torch.full_like(rows, IGNORED_LABEL)
    token_ids[: len(local)] = sample.token_ids[local]
    labels[: len(local)] = sample.targets[local]
    return Batch(token_ids, rows, labels)
