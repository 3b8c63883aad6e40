"""What collectives need of a device, made before the arenas take the rest: communicators, their buffers and kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from fpdt.devices import foreign_bytes
from fpdt.plan import Plan
from fpdt.run.ranks import Ranks, check_same_plan, join_process_group, rank_place, sequence_group

WARM_UP_BYTES: Mapping[str, tuple[int, ...]] = {"cpu": (1 << 12,), "cuda": (1 << 12, 1 << 26)}
"""NCCL takes another algorithm for long messages than for short ones, and connects each when it is first used."""


@dataclass(frozen=True)
class Communicators:
    """`exchange` is the group of the sequence, None where a rank is alone in it.

    `num_bytes`: of the device that they took, beside what PyTorch allocated; None where the device cannot tell.
    """

    ranks: Ranks
    exchange: dist.ProcessGroup | None
    num_bytes: int | None


def connect(plan: Plan) -> Communicators:
    """Joins the ranks of the plan and runs every collective once that ZeRO or an exchange will ask for.

    Itself a collective. Kernels of ops come later, when there are weights: warm_up.
    Raises RankError where the ranks do not fit the plan, or hold different ones.
    """
    before = foreign_bytes(rank_place(plan).device)
    ranks = join_process_group(plan)
    check_same_plan(plan, ranks)
    exchange = sequence_group(plan, ranks.rank)
    warm_up_collectives(ranks, exchange)
    after = foreign_bytes(ranks.device)
    return Communicators(ranks, exchange, None if before is None or after is None else max(0, after - before))


def warm_up_collectives(ranks: Ranks, exchange: dist.ProcessGroup | None) -> None:
    """Runs each once, short and long; itself a collective."""
    for num_bytes in WARM_UP_BYTES[ranks.device.type]:
        _warm_up(ranks, exchange, num_bytes)


def _warm_up(ranks: Ranks, exchange: dist.ProcessGroup | None, num_bytes: int) -> None:
    """ZeRO's on the default group, the exchange on its own: what nobody sends would take memory for nothing."""
    if ranks.world_size > 1:
        whole, part = _message(num_bytes, ranks.world_size, ranks.device)
        dist.all_gather_into_tensor(whole, part)
        dist.reduce_scatter_tensor(part, whole)
        dist.all_reduce(whole)
    if exchange is not None:
        out, _ = _message(num_bytes, exchange.size(), ranks.device)
        dist.all_to_all_single(out, torch.zeros_like(out), group=exchange)
    if ranks.device.type == "cuda":
        torch.cuda.synchronize(ranks.device)


def _message(num_bytes: int, num_ranks: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of all ranks together, and of one."""
    num_elements = num_bytes // torch.float32.itemsize // num_ranks
    part = torch.zeros(max(1, num_elements), device=device)
    return torch.zeros(num_ranks * part.numel(), device=device), part
