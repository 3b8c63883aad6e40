"""Short texts of every rank, told to every rank, over a process group that no collective of a step uses."""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist

PATIENCE = timedelta(days=7)
"""A rank waits for the slowest disk of all; one that has died ends the wait by itself."""


class Agreement:
    """Made by all ranks. For one thread at a time: one that writes may use it while the main one trains."""

    def __init__(self, world_size: int) -> None:
        self._world_size = world_size
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE) if world_size > 1 else None

    def gather(self, text: str) -> list[str]:
        """The text of each rank, by rank; a collective."""
        if self._group is None:
            return [text]
        mine = torch.frombuffer(bytearray(f"{text}\n".encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self._world_size)]
        dist.all_gather(sizes, torch.tensor([mine.numel()]), group=self._group)
        longest = int(torch.stack(sizes).max())
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: mine.numel()] = mine
        found = [torch.empty_like(padded) for _ in range(self._world_size)]
        dist.all_gather(found, padded, group=self._group)
        return [bytes(one[: int(size) - 1].tolist()).decode() for one, size in zip(found, sizes, strict=True)]
