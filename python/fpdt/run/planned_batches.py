"""Batches as a plan takes them: what its source gives, held against the plan before anything runs on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from fpdt.data.batch import Batch
from fpdt.errors import DataError
from fpdt.plan import Plan

PLAN_FOR_PACKING = "plan with --packing (run.packing: true)"


class BatchSource(Protocol):
    """Gives one rank's rows of a micro-step."""

    def read(self, step: int, micro_step: int) -> Batch: ...

    def name(self, step: int, micro_step: int, data_rank: int, position: int | None = None) -> str:
        """What stands at a position of a replica's sequence, or in all of it, as the data's owner would find it."""

    def close(self) -> None: ...


class ResumableSource(BatchSource, Protocol):
    """One that a later run can go on with."""

    def position(self, next_step: int) -> dict[str, Any]:
        """JSON-safe: which data it is, and what of it the steps before `next_step` took."""

    def seek(self, position: Mapping[str, Any], next_step: int) -> None:
        """Has `next_step` go on there. Raises DataError where the data has changed."""


class PlannedBatches:
    """The batches of `source`, checked; those of a plan for packing all have weights.

    Raises DataError for a batch that is not as its description says, or that needs a plan for packing and has another.
    """

    def __init__(self, plan: Plan, source: BatchSource) -> None:
        self._source = source
        self._packing = plan.packing
        self._num_rows = next(table.capacity for table in plan.header.tables)
        self._seq_len = int(plan.run["paddedSeqLen"])

    def read(self, step: int, micro_step: int) -> Batch:
        batch = self._source.read(step, micro_step)
        where = f"the batch of step {step}, micro-step {micro_step}"
        for name, table in batch.tables.items():
            self._check_table(f"{name} of {where}", table, torch.float32 if name == "weights" else torch.int64)
        self._check_starts(where, batch.document_starts)
        if batch.weights is not None:
            _check_weights(where, batch.weights)
        if self._packing:
            return batch if batch.weights is not None else replace(batch, weights=torch.ones(self._num_rows))
        if len(batch.document_starts) > 1:
            found = f"{where} has {len(batch.document_starts)} documents, and the plan is for one in a sequence"
            raise DataError(found, PLAN_FOR_PACKING)
        if batch.weights is not None:
            raise DataError(f"{where} has loss weights, and the plan has no place for them", PLAN_FOR_PACKING)
        return batch

    def name(self, step: int, micro_step: int, data_rank: int, position: int | None = None) -> str:
        return self._source.name(step, micro_step, data_rank, position)

    def close(self) -> None:
        self._source.close()

    def _check_table(self, what: str, table: Tensor, dtype: torch.dtype) -> None:
        if table.dtype != dtype or table.shape != (self._num_rows,):
            found = f"{what}: expected {self._num_rows} rows of {dtype}, found {list(table.shape)} of {table.dtype}"
            raise DataError(found, "give the rows that this rank has of the padded sequence")

    def _check_starts(self, where: str, starts: tuple[int, ...]) -> None:
        rises = all(before < after for before, after in pairwise(starts))
        if starts[:1] != (0,) or not rises or starts[-1] >= self._seq_len:
            shown = ", ".join(map(str, starts[:8])) + (", .." if len(starts) > 8 else "")
            raise DataError(
                f"documents of {where} begin at {shown or 'nothing'}: expected 0 and then rising positions "
                f"below {self._seq_len}",
                "leave out empty documents; padding is a document too",
            )


def _check_weights(where: str, weights: Tensor) -> None:
    wrong = ~(weights.isfinite() & (weights >= 0))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise DataError(
            f"row {row} of {where} has the loss weight {float(weights[row])}", "give finite weights from 0 on"
        )
