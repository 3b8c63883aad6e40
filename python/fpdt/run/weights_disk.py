"""Weights that DeepSpeed keeps on a disk (offload_param to nvme), read through its buffers as they are gathered.

DeepSpeed reads all weights of a module at once and leaves them in its buffers until they are released, so that a layer
needs as many buffers as it has weights. Here a module is a whole layer, and others may be gathered beside it: a share
leaves its buffer as soon as it is read, for memory of the device, and any number of buffers will do. A share that was
changed goes back through one.
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
from torch import nn


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

    def swap_out_and_release(self, params: Sequence[Any], async_op: bool = False, **_: Any) -> None:
        """Writes shares that were made, or changed while they were gathered, one after the other."""
        for param in params:
            if param.ds_id not in self.param_id_to_swap_buffer:
                share = param.ds_tensor.data
                self.get_buffer(param, share.numel()).copy_(share)
            super().swap_out_and_release([param])

    def swap_into_buffer(self, param: Any, dest_buffer: torch.Tensor) -> None:
        """Brings a share back for good. DeepSpeed reads straight into page-locked memory, at places that are refused
        without a word, see states_disk."""
        super().swap_in([param], async_op=False)
        dest_buffer.copy_(param.ds_tensor.data)
        self.remove_partition_and_release_buffers([param])


def take_over(model: nn.Module, device: torch.device) -> bool:
    """Has the weights of a model that DeepSpeed's own zero.Init has put on a disk be read like this too, for good:
    DeepSpeed goes on gathering whole layers. False where there are none yet."""
    swappers = {id(one): one for weight in model.parameters() if (one := getattr(weight, "nvme_swapper", None))}
    for swapper in swappers.values():
        swapper.__class__ = WeightsOnDisk
        swapper._device = device
    return len(swappers) > 0


def share_dtype(weight: Any) -> torch.dtype:
    """Of what a rank has of a weight, sharded by ZeRO-3 or not; in the memory of one on a disk is nothing of it."""
    share = getattr(weight, "ds_tensor", weight)
    is_away = getattr(share, "status", None) == PartitionedParamStatus.NOT_AVAILABLE
    dtype: torch.dtype = weight.nvme_swapper.dtype if is_away else share.dtype
    return dtype


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
