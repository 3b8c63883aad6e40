"""Whole sequences of a stream, for a reference on one process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fpdt.data.demand import plan_demand
from fpdt.data.options import DataOptions
from fpdt.data.sources import TrainingData, open_data
from fpdt.errors import DataError
from fpdt.plan import Plan


@dataclass(frozen=True)
class WholeSequences:
    """The slices that all ranks of a plan train on."""

    data: TrainingData
    seq_len: int
    data_parallel_size: int
    accumulation_steps: int

    def whole(self, step: int, micro_step: int, data_rank: int) -> Tensor:
        """All seqLen + 1 tokens of a slice, int64."""
        number = (step * self.accumulation_steps + micro_step) * self.data_parallel_size + data_rank
        layout = self.data.sequences.layout(number)
        if layout.closed:
            raise DataError(f"{self.data.corpus.path} has documents", "give the reference a stream of tokens")
        start = int(layout.first[0])
        return torch.from_numpy(self.data.corpus.tokens.take(np.arange(start, start + layout.num_rows + 1)))


def plan_sequences(plan: Plan, path: Path) -> WholeSequences:
    """The sequences of a plan's run on a file."""
    accumulation_steps = int(plan.run["gradientAccumulationSteps"])
    data = open_data(DataOptions(path), plan_demand(plan))
    return WholeSequences(data, int(plan.run["seqLen"]), plan.data_parallel_size, accumulation_steps)
