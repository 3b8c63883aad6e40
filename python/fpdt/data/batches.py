"""The batches of a run: sequence after sequence, in an order that data and seed alone give, from where a run stopped.

Data-rank r of dp trains, in micro-step m of optimizer step t, on sequence (t * accumulationSteps + m) * dp + r, counted
on from the sequences that earlier runs consumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        self._consumed = 0
        """Sequences before the next step."""
        self._offset: int | None = 0
        """Sequences that earlier runs were ahead of this one's step 0; None until the first step after a seek."""

    def read(self, step: int, micro_step: int) -> Batch:
        """This rank's rows of a micro-step. Raises DataError."""
        if self._offset is None:
            self._offset = self._consumed - step * self._share.sequences_per_step
        self._consumed = self._offset + (step + 1) * self._share.sequences_per_step
        return self._ahead.take(self._offset + self._share.number(step, micro_step))

    def position(self) -> dict[str, Any]:
        """Where the step after the last one that was read goes on; JSON-safe, the same on all ranks."""
        data = self._data
        place = {"cut": data.cut, "seed": data.seed, "sequences": self._consumed}
        return {"data": data.corpus.fingerprint.to_json(), **place}

    def seek(self, position: Mapping[str, Any]) -> None:
        """The step that is read next, whatever its number, goes on there. Raises DataError for other data."""
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
        self._consumed, self._offset = int(position["sequences"]), None

    def close(self) -> None:
        """Ends the thread that reads ahead."""
        self._ahead.close()

    def _read_sequence(self, number: int) -> Batch:
        return self._reader.batch(self._data.sequences.layout(number))


def _order(seed: int | None) -> str:
    return "the file" if seed is None else f"seed {seed}"


def _order_options(seed: int | None) -> str:
    return "--no-shuffle" if seed is None else f"--shuffle --data-seed {seed}"
