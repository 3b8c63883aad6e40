"""Weights that DeepSpeed keeps on a disk (offload_param to nvme), read through its buffers as they are gathered.

DeepSpeed reads all weights of a module at once and leaves them in its buffers until they are released, so that a layer
needs as many buffers as it has weights. Here a module is a whole layer, and others may be gathered beside it: a share
leaves its buffer as soon as it is read, for memory of the device, and any number of buffers will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from deepspeed.runtime.config import DeepSpeedConfig
from deepspeed.runtime.swap_tensor.partitioned_param_swapper import (
    AsyncPartitionedParameterSwapper,
    PartitionedParamStatus,
)


class WeightsOnDisk(AsyncPartitionedParameterSwapper):  # type: ignore[misc]
    """One for all units of a model: each would begin by removing the files of the one before."""

    def __init__(self, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> None:
        """`config`: what zero.Init gets; its offload_param names the rank's own folder."""
        super().__init__(DeepSpeedConfig(dict(config)), dtype)
        self._device = device

    def swap_in(self, params: Sequence[Any], async_op: bool = True) -> None:
        """Reads shares from the disk, as many at a time as there are buffers.

        `async_op`: ahead of their gather, as DeepSpeed's own trace of the modules says. That is left out: rebuilt
        layers are gathered in between, and would find the buffers taken.
        """
        if async_op:
            return
        for first in range(0, len(params), self.param_buffer_count):
            group = list(params[first : first + self.param_buffer_count])
            super().swap_in(group, async_op=False)
            for param in group:
                share = param.ds_tensor.data.to(self._device, copy=True)
                self.remove_partition_and_release_buffers([param])
                param.ds_tensor.data = share
                param.ds_tensor.status = PartitionedParamStatus.AVAILABLE

    def swap_into_buffer(self, param: Any, dest_buffer: torch.Tensor) -> None:
        """Brings a share back for good. DeepSpeed reads straight into page-locked memory, at places that are refused
        without a word, see states_disk."""
        super().swap_in([param], async_op=False)
        dest_buffer.copy_(param.ds_tensor.data)
        self.remove_partition_and_release_buffers([param])


@contextmanager
def own_share(weight: Any) -> Iterator[torch.Tensor]:
    """This rank's share of a weight that ZeRO-3 has sharded, read for the time being where it lies on a disk alone."""
    share = weight.ds_tensor
    if share.status == PartitionedParamStatus.AVAILABLE:
        yield share
        return
    weight.nvme_swapper.swap_in([weight], async_op=False)
    try:
        yield share
    finally:
        weight.nvme_swapper.remove_partition_and_release_buffers([weight])
