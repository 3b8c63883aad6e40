"""What a rank is given to train on in one micro-step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fpdt.data.tokens import IGNORED_LABEL

PADDING_TOKEN = 0


@dataclass(frozen=True)
class Batch:
    """One rank's rows of the sequence of a micro-step, int64 [rows]. Labels are shifted; padding has label -100.

    `weights`: of the loss of each target, float32 [rows]; None where all are 1. `document_starts`: where documents
    begin in the whole padded sequence, ascending, the first at 0; the same on all ranks of a sequence group. Positions
    begin at 0 in each document. Padding at the end is documents of its own.
    """

    token_ids: Tensor
    positions: Tensor
    labels: Tensor
    weights: Tensor | None = None
    document_starts: tuple[int, ...] = (0,)

    @property
    def tables(self) -> dict[str, Tensor]:
        """By the names of the plan's tables."""
        weights = {} if self.weights is None else {"weights": self.weights}
        return {"tokenIds": self.token_ids, "positions": self.positions, "labels": self.labels, **weights}

    @property
    def num_valid(self) -> int:
        """Target tokens that count in the loss."""
        return int((self.labels != IGNORED_LABEL).sum())

    @property
    def weight_sum(self) -> float:
        """What this rank's rows add to the divisor of the loss: the weights of those tokens, or their number."""
        if self.weights is None:
            return float(self.num_valid)
        return float(self.weights[self.labels != IGNORED_LABEL].double().sum())
