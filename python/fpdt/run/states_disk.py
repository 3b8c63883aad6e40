"""An optimizer's states on a disk (offload_optimizer to nvme), and the gradients that are read for its updates.

DeepSpeed 0.19.8 reads the gradient of each weight directly to its place among those of a sub-group. Kernels and devices
differ in which places they take: all take multiples of a sector, many nothing else. What is refused DeepSpeed takes for
read (`_do_io_complete` of csrc/aio looks at no result), and updates by what the buffer had of another sub-group.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepspeed.runtime.swap_tensor.partitioned_optimizer_swapper import PartitionedOptimizerSwapper
from deepspeed.runtime.swap_tensor.pipelined_optimizer_swapper import PipelinedOptimizerSwapper
from torch import Tensor

from fpdt.checkpoint.on_disk import OnDisk, bytes_of

SECTOR_BYTES = 512
"""What O_DIRECT asks of addresses at most, where a file system transfers to memory directly (open(2))."""


class StatesOnDisk(PartitionedOptimizerSwapper):  # type: ignore[misc]
    """One sub-group after the other."""

    def _swap_in_pinned_gradients(self, aio_handle: Any, parameter: Any, gradient_tensor: Tensor) -> None:
        super()._swap_in_pinned_gradients(aio_handle, parameter, gradient_tensor)
        _read_between_sectors(self.swap_params_info[parameter.ds_id], gradient_tensor)


class PipelinedStatesOnDisk(PipelinedOptimizerSwapper):  # type: ignore[misc]
    """The next sub-group is read, and the one before written, while one is updated (pipeline_read, pipeline_write)."""

    def _swap_in_optimizer_state(self, aio_handle: Any, parameter: Any) -> Any:
        operation = super()._swap_in_optimizer_state(aio_handle, parameter)
        if operation is not None and operation.param_info.swapped_gradients:
            # Where reads of the same bytes to the same places are taken, they may be under way still.
            _read_between_sectors(operation.param_info, parameter.grad)
        return operation

    def _swap_out_optimizer_state(self, aio_handle: Any, parameter: Any, swap_in_op: Any) -> Any:
        """DeepSpeed keeps the states that a first update makes, of all sub-groups, until the second one; here they go
        when they are in the buffers that are written."""
        operation = super()._swap_out_optimizer_state(aio_handle, parameter, swap_in_op)
        operation.param_info.release_memory()
        return operation


def read_gradients_anywhere(optimizer: Any) -> None:
    """Of DeepSpeed's optimizer, where it has a disk; before the first update."""
    swapper = getattr(optimizer, "optimizer_swapper", None)
    if isinstance(swapper, PartitionedOptimizerSwapper):
        swapper.__class__ = StatesOnDisk
    elif isinstance(swapper, PipelinedOptimizerSwapper):
        swapper.__class__ = PipelinedStatesOnDisk
        for info in swapper.swap_params_info.values():
            info.release_memory()


def _read_between_sectors(info: Any, gradient: Tensor) -> None:
    """The gradients of a sub-group that begin at no sector; `gradient`: of all of it."""
    for one in info.swapped_gradients.values():
        target = gradient.narrow(0, one.offset, one.length)
        if target.data_ptr() % SECTOR_BYTES:
            OnDisk(Path(one.path), 0, one.length, target.dtype).read(bytes_of(target))
