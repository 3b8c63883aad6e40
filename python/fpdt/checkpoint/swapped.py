"""States that DeepSpeed's swapper keeps on a disk (offload_optimizer to nvme): in memory during an update alone.

Read from DeepSpeed 0.19.8, runtime/swap_tensor/optimizer_utils.py. Between updates the tensors of a sub-group, its
weight and the states that the optimizer has for it, are empty, and each is a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fpdt.checkpoint.on_disk import OnDisk, sync, write_zeros


@dataclass(frozen=True)
class Swapped:
    """Of one sub-group. `weight` is what the optimizer steps."""

    swapper: Any
    weight: Any

    def part(self, state: Tensor, first: int, count: int) -> OnDisk:
        """Where elements of the weight, or of a state of it, are."""
        path = next(Path(one.swap_path) for one in self._info.tensors if one.compute_tensor is state)
        return OnDisk(path, first, count, self.swapper.dtype)

    def make_state(self, name: str) -> Tensor:
        """A state of zeros that has never been in memory. Raises OSError that names its file."""
        state: Any = torch.empty(0, dtype=self.swapper.dtype)
        state.ds_id = f"{name}-{self.weight.ds_id}"  # As DeepSpeed names it, and so its file.
        self._info.add_state_tensors([state])
        num_elements = self.swapper._io_aligned_numel(self._info.numel())
        write_zeros(Path(self._info.tensors[-1].swap_path), num_elements * self.swapper.swap_element_size)
        made: Tensor = state
        return made

    def sync(self) -> None:
        """Raises OSError that names the file that could not be written."""
        for one in self._info.tensors:
            sync(Path(one.swap_path))

    @property
    def _info(self) -> Any:
        return self.swapper.swap_params_info[self.weight.ds_id]


def swapped(optimizer: Any, number: int) -> Swapped | None:
    """Sub-group `number` of an optimizer of ZeRO-3; None where it is in memory, being small or not offloaded there."""
    if not optimizer._swappable_optimizer_subgroup(number):
        return None
    return Swapped(optimizer.optimizer_swapper, optimizer.fp32_partitioned_groups_flat[number])


@contextmanager
def in_memory(optimizer: Any, number: int) -> Iterator[None]:
    """Has what lies on the disk of a sub-group in DeepSpeed's buffers, to be read. Raises OSError where it does not."""
    on_disk = swapped(optimizer, number)
    if on_disk is None:
        yield
        return
    on_disk.sync()
    optimizer._optimizer_states_and_gradient_swap_in(number)
    try:
        yield
    finally:
        optimizer._release_swap_buffers(number)
