"""All ranks of a sequence are given the same sample, of which each takes its own rows: compared at every forward.

Otherwise the loss would be that of a sample nobody has, without an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from fpdt.errors import DataError, FpdtError
from fpdt.loop.call import Sample

PARTS = ("input_ids", "labels", "num_items_in_batch", "the mode: training or torch.no_grad()")
HINT = "give them one loader's samples: fpdt.data_loader(dataset, plan), or, for a Trainer, streamed.feed(trainer)"


def agree(read: Callable[[], Sample], group: dist.ProcessGroup | None, device: torch.device) -> Sample:
    """What `read` gives; a collective of the group, None: a rank alone.

    Raises on all ranks of the group: what `read` raises, where it did, and elsewhere DataError, as it does on all where
    the samples differ.
    """
    if group is None:
        return read()
    sample, error = _try(read)
    mine = torch.tensor([0] * (1 + len(PARTS)) if sample is None else [1, *_hashes(sample)], device=device)
    table = [torch.empty_like(mine) for _ in range(group.size())]
    dist.all_gather(table, mine, group=group)
    if error is not None:
        raise error
    _compare(torch.stack(table).cpu(), dist.get_process_group_ranks(group))
    assert sample is not None  # or there was an error
    return sample


def _try(read: Callable[[], Sample]) -> tuple[Sample | None, FpdtError | None]:
    """Other errors are this rank's own fault and raised here: the others learn of them by its end."""
    try:
        return read(), None
    except FpdtError as error:
        return None, error


def _hashes(sample: Sample) -> list[int]:
    divisor = torch.tensor([sample.divisor], dtype=torch.float64)
    return [_hash(sample.token_ids), _hash(sample.targets), _hash(divisor), int(torch.is_grad_enabled())]


def _hash(tensor: Tensor) -> int:
    digest = hashlib.blake2b(tensor.numpy().tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _compare(table: Tensor, ranks: list[int]) -> None:
    refused = [rank for rank, row in zip(ranks, table, strict=True) if not row[0]]
    if refused:
        raise DataError(f"rank {refused[0]}, of the same sequence, cannot run the sample it was given", "see its error")
    for rank, row in zip(ranks, table, strict=True):
        if differing := [part for part, is_same in zip(PARTS, row[1:] == table[0, 1:], strict=True) if not is_same]:
            found = f"rank {rank} differs from rank {ranks[0]} in {' and '.join(differing)}"
            raise DataError(f"ranks {ranks} share a sequence and were given different samples: {found}", HINT)
