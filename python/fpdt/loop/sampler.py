"""Samples for ranks that share sequences: the same for all ranks of a group, shared out among the groups."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.utils.data import DataLoader, IterableDataset, Sampler

from fpdt.data.order import shuffled
from fpdt.errors import DataError
from fpdt.plan import Plan, load_plan
from fpdt.run.ranks import RankError


class SequenceGroupSampler(Sampler[int]):
    """Numbers of samples, in rounds of one for each group; those that do not fill a round at the end are left out.

    Group d of D takes number d, D + d, ... of the dataset's order, or of that which seed and epoch give. Every rank of
    the group gets the same. `set_epoch` is to be called before each epoch; a loop that goes on says how many samples of
    its group it had in the epoch: `set_epoch(epoch, start=micro_steps_done)`.
    """

    def __init__(
        self,
        dataset: Sized,
        plan: Plan | str | Path,
        *,
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
    ) -> None:
        """`rank`: None: that of the process group, or of the environment.

        Raises DataError for a dataset that does not fill one round, RankError for a rank that the plan has not.
        """
        planned = plan if isinstance(plan, Plan) else load_plan(plan)
        groups = planned.layout.sequence_groups
        mine = _rank() if rank is None else rank
        found = [number for number, ranks in enumerate(groups) if mine in ranks]
        if not found:
            raise RankError(f"the plan has {planned.world_size} ranks, none of them {mine}", "plan for as many ranks")
        self._group, self._num_groups = found[0], len(groups)
        self.num_samples = len(dataset)
        if self.num_rounds == 0:
            raise DataError(
                f"the dataset has {self.num_samples} samples, and {len(groups)} groups of ranks take one each",
                "give more samples, or plan for fewer replicas",
            )
        self._seed = seed if shuffle else None
        self._epoch = self._start = 0

    @property
    def num_rounds(self) -> int:
        """Samples of one group in an epoch."""
        return self.num_samples // self._num_groups

    @property
    def num_left_out(self) -> int:
        return self.num_samples - self.num_rounds * self._num_groups

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """`start`: samples of the group that the epoch has had already. Raises DataError for more than there are."""
        if not 0 <= start <= self.num_rounds:
            raise DataError(f"an epoch has {self.num_rounds} samples a group, {start} are to be left out", "count anew")
        self._epoch, self._start = epoch, start

    def __len__(self) -> int:
        return self.num_rounds - self._start

    def __iter__(self) -> Iterator[int]:
        numbers = range(self.num_samples)
        order = numbers if self._seed is None else shuffled(self.num_samples, self._seed, self._epoch).tolist()
        first = self._start * self._num_groups + self._group
        yield from order[first : self.num_rounds * self._num_groups : self._num_groups]


class SequenceGroupLoader(DataLoader[Any]):
    """See data_loader."""

    def __init__(self, dataset: Any, sampler: SequenceGroupSampler, **options: Any) -> None:
        super().__init__(dataset, batch_size=1, sampler=sampler, **options)
        self.group_sampler = sampler
        # accelerate would share the samples out once more, a rank each; so it does not touch a loader that has this.
        self._is_accelerate_prepared = True
        # Where a Trainer resumes, accelerate puts a loader of its own around the batch sampler.
        batch_sampler: Any = self.batch_sampler
        batch_sampler.set_epoch = sampler.set_epoch

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """See SequenceGroupSampler."""
        self.group_sampler.set_epoch(epoch, start)


def data_loader(
    dataset: Any,
    plan: Plan | str | Path,
    *,
    shuffle: bool = True,
    seed: int = 0,
    rank: int | None = None,
    **options: Any,
) -> SequenceGroupLoader:
    """A DataLoader of single samples, the same for all ranks of a sequence; `options` are other ones of DataLoader.

    `accelerator.prepare` leaves it as it is. Raises DataError for a dataset without a length and for an option that
    says which samples there are, as SequenceGroupSampler does for others.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise DataError(
            f"{type(dataset).__name__} has no length, so that its samples cannot be shared out",
            "give a dataset with numbered samples, or have all ranks of a sequence read the same by a loader of yours",
        )
    for name in ("batch_size", "sampler", "batch_sampler", "drop_last"):
        if name in options and not (name == "batch_size" and options.pop(name) == 1):
            raise DataError(f"data_loader was given {name}", "leave it out: a batch is one sample of the group's")
    sampler = SequenceGroupSampler(dataset, plan, shuffle=shuffle, seed=seed, rank=rank)
    return SequenceGroupLoader(dataset, sampler, **options)


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))
