"""Where DeepSpeed's optimizers keep the fp32 weights that they step: which tensor has which elements of a parameter.

Read from DeepSpeed 0.19.8. Its `_hp_mapping` is not used: with `round_robin_gradients` it counts offsets in the order
of the model, while the partitions lie in that of the ranks (`_link_all_hp_params`, runtime/zero/stage_1_and_2.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.fp16.fused_optimizer import FP16_Optimizer
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.utils import all_gather_dp_groups
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer
from torch import Tensor, nn

from fpdt.checkpoint.staging import State
from fpdt.checkpoint.swapped import Swapped, in_memory, swapped
from fpdt.errors import FpdtError


class CheckpointError(FpdtError):
    """A checkpoint that cannot be written, is not sound, or is not of this run."""


@dataclass(frozen=True)
class Piece:
    """Elements [start, start + numel) of a flattened parameter, at [offset, offset + numel) of a master."""

    name: str
    start: int
    numel: int
    offset: int


@dataclass(frozen=True)
class Master:
    """A tensor that the base optimizer steps and keeps states for. What no piece names of it is padding.

    `on_disk`: of one that is empty but for updates, as are its states."""

    tensor: Tensor
    pieces: Sequence[Piece]
    on_disk: Swapped | None = None

    def has_its_shape(self, value: Any) -> bool:
        """Whether a value that the optimizer keeps has an element for each of this."""
        return isinstance(value, Tensor) and value.dim() > 0 and value.numel() == self.tensor.numel()

    def part(self, value: Tensor, piece: Piece) -> State:
        """What a piece is of this, or of a state of it: a view of the live tensor, or its place on the disk."""
        if self.on_disk is not None:
            return self.on_disk.part(value, piece.offset, piece.numel)
        return value.detach().view(-1).narrow(0, piece.offset, piece.numel)


@dataclass(frozen=True)
class Masters:
    """`base` is the optimizer inside DeepSpeed's. `is_replicated`: every rank has all elements of all parameters."""

    base: torch.optim.Optimizer
    all: Sequence[Master]
    is_replicated: bool


def masters_of(optimizer: Any, model: nn.Module) -> Masters:
    """What this rank holds. Raises CheckpointError for an optimizer that is none of DeepSpeed's six."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        return Masters(optimizer.optimizer, list(_of_stage_3(optimizer, names)), is_replicated=False)
    if isinstance(optimizer, DeepSpeedZeroOptimizer):
        return Masters(optimizer.optimizer, list(_of_stages_1_and_2(optimizer, names)), is_replicated=False)
    if isinstance(optimizer, BF16_Optimizer):
        return Masters(optimizer.optimizer, list(_of_bf16_stage_1(optimizer, names)), is_replicated=False)
    if isinstance(optimizer, FP16_UnfusedOptimizer):
        pairs = zip(_flat(optimizer.fp32_groups), _flat(optimizer.fp16_groups), strict=True)
        return Masters(optimizer.optimizer, [_whole(*pair, names) for pair in pairs], is_replicated=True)
    if isinstance(optimizer, FP16_Optimizer):
        groups = zip(optimizer.fp32_groups_flat, optimizer.fp16_groups, strict=True)
        masters = [Master(flat, _cut(_laid_out(group), (0, flat.numel()), names)) for flat, group in groups]
        return Masters(optimizer.optimizer, masters, is_replicated=True)
    if isinstance(optimizer, torch.optim.Optimizer):
        weights = _flat(group["params"] for group in optimizer.param_groups)
        return Masters(optimizer, [_whole(weight, weight, names) for weight in weights], is_replicated=True)
    raise CheckpointError(
        f"checkpoints do not know DeepSpeed's {type(optimizer).__name__}", "run without --checkpoint and --resume"
    )


def publish_masters(optimizer: Any) -> None:
    """Gives the model the weights that the masters have, as DeepSpeed does after a step; a collective."""
    if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):
        optimizer._partition_all_parameters()
        for number in range(len(optimizer.fp16_groups)):
            with in_memory(optimizer, number):
                optimizer._reassign_or_swap_out_partitioned_parameters(number)
        optimizer.invalidate_secondary_tensor()
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
    elif isinstance(optimizer, DeepSpeedZeroOptimizer):
        for number, master in enumerate(optimizer.single_partition_of_fp32_groups):
            rank = dist.get_rank(group=optimizer.real_dp_process_group[number])
            optimizer.parallel_partitioned_bit16_groups[number][rank].data.copy_(master.data)
        all_gather_dp_groups(
            groups_flat=optimizer.bit16_groups_flat,
            partitioned_param_groups=optimizer.parallel_partitioned_bit16_groups,
            dp_process_group=optimizer.real_dp_process_group,
            start_alignment_factor=optimizer.nccl_start_alignment_factor,
            allgather_bucket_size=optimizer.allgather_bucket_size,
        )
    elif isinstance(optimizer, BF16_Optimizer):
        optimizer.update_lp_params()
    elif isinstance(optimizer, FP16_UnfusedOptimizer):
        for master, weight in zip(_flat(optimizer.fp32_groups), _flat(optimizer.fp16_groups), strict=True):
            weight.data.copy_(master.data)
    elif isinstance(optimizer, FP16_Optimizer):
        for master, weights in zip(optimizer.fp32_groups_flat, optimizer.fp16_groups_flat, strict=True):
            weights.data.copy_(master.data)
    # A plain optimizer steps the model's weights themselves.


def _of_stage_3(optimizer: Any, names: Mapping[int, str]) -> Iterator[Master]:
    """Every rank has the n-th part of each parameter; a sub-group's parts lie one after the other."""
    for number, group in enumerate(optimizer.fp16_groups):
        rank = optimizer._get_sub_group_partition_rank(number)
        pieces = []
        for parameter in group:
            _, offset, part = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = rank * part
            numel = min(part, parameter.ds_numel - start)
            if numel > 0:
                pieces.append(Piece(names[id(parameter)], start, numel, offset))
        yield Master(optimizer.fp32_partitioned_groups_flat[number], pieces, swapped(optimizer, number))


def _of_stages_1_and_2(optimizer: Any, names: Mapping[int, str]) -> Iterator[Master]:
    for number, master in enumerate(optimizer.single_partition_of_fp32_groups):
        rank, size = dist.get_rank(group=optimizer.real_dp_process_group[number]), optimizer.partition_size[number]
        offsets = optimizer.round_robin_bit16_offsets[number]
        places = zip(optimizer.round_robin_bit16_groups[number], offsets, strict=True)
        yield Master(master, _cut(places, (rank * size, (rank + 1) * size), names))


def _of_bf16_stage_1(optimizer: Any, names: Mapping[int, str]) -> Iterator[Master]:
    for number, master in enumerate(optimizer.fp32_groups_flat_partition):
        rank, size = dist.get_rank(group=optimizer.real_dp_process_group[number]), master.numel()
        places = _laid_out(optimizer.bf16_groups[number])
        yield Master(master, _cut(places, (rank * size, (rank + 1) * size), names))


def _laid_out(group: Sequence[Tensor]) -> Iterator[tuple[Tensor, int]]:
    """Each parameter of a group with its place where they are flattened in order."""
    sizes = [parameter.numel() for parameter in group]
    return zip(group, accumulate(sizes[:-1], initial=0), strict=True)


def _cut(places: Iterable[tuple[Tensor, int]], part: tuple[int, int], names: Mapping[int, str]) -> list[Piece]:
    """What lies in the elements `part` of a flat tensor; `places`: parameters, and where each of them begins."""
    first, last = part
    pieces = []
    for parameter, place in places:
        start, end = max(place, first), min(place + parameter.numel(), last)
        if start < end:
            pieces.append(Piece(names[id(parameter)], start - place, end - start, start - first))
    return pieces


def _whole(master: Tensor, parameter: Tensor, names: Mapping[int, str]) -> Master:
    return Master(master, [Piece(names[id(parameter)], 0, parameter.numel(), 0)])


def _flat(groups: Iterable[Iterable[Tensor]]) -> list[Tensor]:
    return [one for group in groups for one in group]
