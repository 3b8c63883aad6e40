"""The batches of a run: sequence after sequence, in an order that data and seed alone give, from where a run stopped.

Data-rank r of dp trains, in micro-step m of optimizer step t, on sequence (t * accumulationSteps + m) * dp + r, counted
on from the sequences that earlier runs consumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fpdt.data.ahead import ReadAhead
from fpdt.data.batch import Batch
from fpdt.data.demand import plan_demand
from fpdt.data.options import DataOptions
from fpdt.data.rows import RankReader, Share
from fpdt.data.sources import TrainingData, open_data
from fpdt.errors import DataError
from fpdt.plan import Plan


def open_batches(plan: Plan, options: DataOptions, rank: int) -> Batches:
    """Of one rank of the plan's run; for evaluation too, with options of its own. Raises DataError."""
    return Batches(open_data(options, plan_demand(plan)), Share.of_rank(plan, rank))


class Batches:
    """What a rank trains on, step after step."""

    def __init__(self, data: TrainingData, share: Share) -> None:
        self._data, self._share = data, share
        self._reader = RankReader(data.corpus, share, packs=data.packs)
        self._ahead = ReadAhead(self._read_sequence, share.data_parallel_size)
        self._offset = 0
        """Sequences that earlier runs took more than as many steps of this one would have."""

    def read(self, step: int, micro_step: int) -> Batch:
        """This rank's rows of a micro-step. Raises DataError."""
        return self._ahead.take(self._offset + self._share.number(step, micro_step))

    def position(self, next_step: int) -> dict[str, Any]:
        """Which data it is, and what of it the steps before `next_step` took; JSON-safe, the same on all ranks."""
        data, sequences = self._data, self._offset + next_step * self._share.sequences_per_step
        return {
            "data": data.corpus.fingerprint.to_json(),
            "cut": data.cut,
            "seed": data.seed,
            "sequences": sequences,
        }

    def seek(self, position: Mapping[str, Any], next_step: int) -> None:
        """Has `next_step` go on where the steps before a position stopped. Raises DataError for other data."""
        data, then = self._data, position["data"]
        difference = data.corpus.fingerprint.difference(then)
        if difference is not None:
            raise DataError(
                f"{data.corpus.path} is not the data that the run stopped on ({then.get('file')}): {difference}",
                "give the data as it was, or start a new run",
            )
        if position["cut"] != data.cut:
            raise DataError(
                f"the run that stopped had {position['cut']}, this one has {data.cut}",
                "plan for the same sequences and give the same --long-documents, or start a new run",
            )
        if position["seed"] != data.seed:
            raise DataError(
                f"the run stopped in the order of {_order(position['seed'])}, this is that of {_order(data.seed)}",
                f"give {_order_options(position['seed'])}",
            )
        self._offset = int(position["sequences"]) - next_step * self._share.sequences_per_step

    def name(self, step: int, micro_step: int, data_rank: int, position: int | None = None) -> str:
        """Of what a replica trains on in a micro-step, at a position or all of it: `line 7 of corpus.jsonl`."""
        number = self._offset + replace(self._share, data_rank=data_rank).number(step, micro_step)
        return self._ahead.ask(lambda: self._name(number, position))

    def close(self) -> None:
        """Ends the thread that reads ahead."""
        self._ahead.close()

    def _name(self, number: int, position: int | None) -> str:
        layout, corpus = self._data.sequences.layout(number), self._data.corpus
        if position is None:
            return corpus.name(layout.first) if corpus.documents is not None else f"from {corpus.name(layout.first)} on"
        return "padding" if position >= layout.num_rows else corpus.name(layout.tokens(np.array([position])))

    def _read_sequence(self, number: int) -> Batch:
        return self._reader.batch(self._data.sequences.layout(number))


def _order(seed: int | None) -> str:
    return "the file" if seed is None else f"seed {seed}"


def _order_options(seed: int | None) -> str:
    return "--no-shuffle" if seed is None else f"--shuffle --data-seed {seed}"
