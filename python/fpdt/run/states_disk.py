"""An optimizer's states on a disk (offload_optimizer to nvme), and the gradients that are read for its updates.

DeepSpeed 0.19.8 reads the gradient of each weight directly to its place among those of a sub-group. Kernels and devices
differ in which places they take: all take multiples of a sector, many nothing else. What is refused DeepSpeed takes for
read (`_do_io_complete` of csrc/aio looks at no result), and updates by what the buffer had of another sub-group.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepspeed.runtime.swap_tensor.partitioned_optimizer_swapper import PartitionedOptimizerSwapper
from torch import Tensor

from fpdt.checkpoint.on_disk import OnDisk, bytes_of

SECTOR_BYTES = 512
"""What O_DIRECT asks of addresses at most, where a file system transfers to memory directly (open(2))."""


class StatesOnDisk(PartitionedOptimizerSwapper):  # type: ignore[misc]
    def _swap_in_pinned_gradients(self, aio_handle: Any, parameter: Any, gradient_tensor: Tensor) -> None:
        info = self.swap_params_info[parameter.ds_id]
        every = info.swapped_gradients
        far = {place: one for place, one in every.items() if _address(gradient_tensor, one.offset) % SECTOR_BYTES}
        info.swapped_gradients = {place: one for place, one in every.items() if place not in far}
        if info.swapped_gradients:
            super()._swap_in_pinned_gradients(aio_handle, parameter, gradient_tensor)
        info.swapped_gradients = every
        for one in far.values():
            target = gradient_tensor.narrow(0, one.offset, one.length)
            OnDisk(Path(one.path), 0, one.length, target.dtype).read(bytes_of(target))


def read_gradients_anywhere(optimizer: Any) -> None:
    """Of DeepSpeed's optimizer, where it has a disk; before the first update."""
    swapper = getattr(optimizer, "optimizer_swapper", None)
    if isinstance(swapper, PartitionedOptimizerSwapper):
        swapper.__class__ = StatesOnDisk


def _address(tensor: Tensor, offset: int) -> int:
    return tensor.data_ptr() + offset * tensor.element_size()
