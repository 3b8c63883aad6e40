"""Loss on held-out data: forwards of the plan's program that evaluates, between two optimizer steps."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fpdt.data.batches import Batches
from fpdt.data.demand import plan_demand
from fpdt.data.fingerprint import Fingerprint
from fpdt.data.options import DataOptions
from fpdt.data.rows import Share
from fpdt.data.sources import open_data
from fpdt.errors import DataError
from fpdt.plan import Plan
from fpdt.run.engine import StreamedEngine
from fpdt.run.planned_batches import BatchSource, PlannedBatches
from fpdt.run.zero import apart_from_training


@dataclass(frozen=True)
class EvaluationOutcome:
    """`loss` is the mean over the `num_tokens` target tokens of the sequences of all replicas; each weighs the same."""

    loss: float
    num_tokens: int
    num_sequences: int

    @property
    def non_finite(self) -> list[str]:
        return [] if math.isfinite(self.loss) else ["loss"]


@dataclass(frozen=True)
class HeldOut:
    """Sequences that are evaluated, each once, from the first on: as many rounds as every replica has one in."""

    batches: BatchSource
    fingerprint: Fingerprint
    num_rounds: int
    num_replicas: int

    @property
    def num_sequences(self) -> int:
        return self.num_rounds * self.num_replicas

    def close(self) -> None:
        self.batches.close()


def open_held_out(plan: Plan, options: Mapping[str, Any], rank: int) -> HeldOut | None:
    """What `evaluation` of RunOptions names, or nothing. Rank 0 says which sequences do not fill a round.

    Sequences are in the order of the data, whatever a step trains on, and made as those of the training data are.
    Raises DataError for a plan without a program that evaluates, and for data with too few sequences.
    """
    evaluation: Mapping[str, Any] | None = options.get("evaluation")
    if evaluation is None:
        return None
    if not plan.evaluation_turns:
        raise DataError("there is data to evaluate on, and the plan has no program that does", "plan with --evaluate")
    chosen = replace(DataOptions.of_run(options), path=Path(evaluation["data"]), shuffle=False, seed=None)
    data = open_data(chosen, plan_demand(plan))
    replicas = plan.data_parallel_size
    num_rounds = _num_rounds(plan, evaluation, data.sequences.num_in_epoch, rank)
    share = replace(Share.of_rank(plan, rank), accumulation_steps=1)
    return HeldOut(PlannedBatches(plan, Batches(data, share)), data.corpus.fingerprint, num_rounds, replicas)


def _num_rounds(plan: Plan, evaluation: Mapping[str, Any], available: int, rank: int) -> int:
    replicas, wanted = plan.data_parallel_size, int(evaluation["sequences"] or available)
    if wanted > available:
        raise DataError(
            f"{wanted} sequences are to be evaluated, and {evaluation['data']} has {available}",
            f"give more data, or --eval-sequences {available}",
        )
    num_rounds = wanted // replicas
    if num_rounds == 0:
        raise DataError(
            f"{wanted} sequences are to be evaluated on {replicas} replicas, which take one each",
            f"give data for {replicas} sequences of {plan.run['seqLen']} tokens"
            if available < replicas
            else f"evaluate {replicas} sequences or more",
        )
    if num_rounds * replicas < wanted and rank == 0:
        print(
            f"evaluation: {num_rounds * replicas} of {wanted} sequences, whole rounds of {replicas} replicas",
            file=sys.stderr,
            flush=True,
        )
    return num_rounds


class EvaluationRunner:
    """Evaluates on one rank."""

    def __init__(
        self, engine: StreamedEngine, held_out: HeldOut, before_sequence: Callable[[], None] | None = None
    ) -> None:
        self._engine, self._held_out, self._before_sequence = engine, held_out, before_sequence

    def run(self, note: Callable[[int], None] = lambda sequence: None) -> EvaluationOutcome:
        """A collective. Nothing that trains changes; `note` is called with the number of each of the rank's sequences.

        Sums of a sequence are in fp32, as in training, and added up in fp64.
        """
        engine = self._engine
        totals = torch.zeros(2, dtype=torch.float64, device=engine.device)
        with apart_from_training(engine.deepspeed):
            for number in range(self._held_out.num_rounds):
                note(number)
                totals += self._evaluate(number)
        dist.all_reduce(totals)
        loss_sum, num_tokens = totals.tolist()
        if num_tokens == 0:
            raise DataError("the data to evaluate on has no target token", "give data with labels")
        return EvaluationOutcome(loss_sum / num_tokens, int(num_tokens), self._held_out.num_sequences)

    def _evaluate(self, number: int) -> torch.Tensor:
        """Sum of token losses and number of target tokens of this rank's rows of a sequence, fp64 [2]."""
        engine = self._engine
        if self._before_sequence is not None:
            self._before_sequence()
        batch = self._held_out.batches.read(number, 0)
        engine.program.begin_evaluation(lambda: batch)
        engine.evaluate()
        count = torch.tensor([batch.num_valid], dtype=torch.float64, device=engine.device)
        return torch.cat([engine.program.local_loss_sum.double(), count])
