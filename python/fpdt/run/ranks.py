"""Who this process is among the ranks of a plan, and the process groups between them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.distributed import distributed_c10d

from fpdt.errors import FpdtError
from fpdt.plan import Plan

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


class RankError(FpdtError):
    """Ranks that do not fit the plan, or each other."""


@dataclass(frozen=True)
class Ranks:
    """`local_rank` counts the ranks of this node."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device


def join_process_group(plan: Plan) -> Ranks:
    """Joins the default process group, or finds the one that is there. A process without RANK is alone.

    Raises RankError when the number of ranks is not the plan's.
    """
    place = rank_place(plan)
    if dist.is_initialized():
        limit_groups(plan.collective_timeout)
    else:
        _initialize(place, plan.collective_timeout)
    return place


def rank_place(plan: Plan) -> Ranks:
    """The rank that this process is, by its environment, with its device made current.

    Raises RankError when the number of ranks is not the plan's.
    """
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", WORLD_SIZE="1")
    rank, world_size = int(os.environ["RANK"]), int(os.environ.get("WORLD_SIZE", "1"))
    if world_size != plan.world_size:
        raise RankError(
            f"the plan is for {plan.world_size} ranks, WORLD_SIZE is {world_size}",
            f"start {plan.world_size} ranks, or plan for {world_size}",
        )
    os.environ.setdefault("LOCAL_RANK", str(rank % plan.ranks_per_node))
    local_rank = int(os.environ["LOCAL_RANK"])
    return Ranks(rank, local_rank, world_size, _use_device(plan.device, local_rank))


def present_ranks(plan: Plan, device: torch.device) -> Ranks:
    """This process in the default process group, which somebody else made; `device` is its own.

    Raises RankError where there is none, or the number of ranks is not the plan's.
    """
    if not dist.is_initialized():
        raise RankError("there is no process group", "call deepspeed.init_distributed() or deepspeed.initialize first")
    world_size = dist.get_world_size()
    if world_size != plan.world_size:
        raise RankError(
            f"the plan is for {plan.world_size} ranks, the process group has {world_size}",
            f"start {plan.world_size} ranks, or plan for {world_size}",
        )
    return Ranks(dist.get_rank(), device.index or 0, world_size, device)


def limit_groups(timeout: timedelta) -> None:
    """Gives every process group that is there, those of DeepSpeed too, this limit for a collective."""
    for group in distributed_c10d._world.pg_map:
        distributed_c10d._set_pg_timeout(timeout, group)


def _use_device(name: str, local_rank: int) -> torch.device:
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RankError("the plan is for cuda, but PyTorch finds no CUDA device", "plan for the device cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _initialize(place: Ranks, timeout: timedelta) -> None:
    rank, world_size, device = place.rank, place.world_size, place.device
    backend = BACKENDS[device.type]
    if world_size == 1:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=timeout)
        return
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise RankError(
            f"{' and '.join(missing)} not set for {world_size} ranks", "start the ranks with torchrun or `fpdt run`"
        )
    # NCCL then keeps collectives of several communicators in the order in which the host launches them: the plan's.
    os.environ.setdefault("NCCL_LAUNCH_ORDER_IMPLICIT", "1")
    # With its device NCCL connects at once, and not in the first collective.
    bound = device if device.type == "cuda" else None
    dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=timeout, device_id=bound)


def check_same_plan(plan: Plan, ranks: Ranks) -> None:
    """Raises RankError on every rank when one of them holds another plan."""
    check_same("plans", plan.digest, ranks, "give every rank the same plan.json")


def check_same(what: str, digest: str, ranks: Ranks, hint: str) -> None:
    """A collective. Raises RankError on every rank when one of them has another SHA-256 digest, in hex."""
    mine = torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8, device=ranks.device)
    digests = [torch.empty_like(mine) for _ in range(ranks.world_size)]
    dist.all_gather(digests, mine)
    found = [bytes(digest.tolist()).hex() for digest in digests]
    if len(set(found)) > 1:
        table = ", ".join(f"rank {rank}: {digest[:12]}" for rank, digest in enumerate(found))
        raise RankError(f"the ranks hold different {what} ({table})", hint)


def sequence_group(plan: Plan, rank: int) -> dist.ProcessGroup | None:
    """The group this rank exchanges heads with, of the plan's layout; None where it is alone in it.

    Where the sequence has all ranks it is the default group: another one would be another communicator. Every rank
    makes all groups.
    """
    lists = plan.layout.sequence_groups
    if plan.sequence_parallel_size == 1:
        return None
    if lists == (tuple(range(plan.world_size)),):
        return dist.group.WORLD
    timeout = plan.collective_timeout
    groups: list[dist.ProcessGroup] = [dist.new_group(list(ranks), timeout=timeout) for ranks in lists]
    return next(group for group, ranks in zip(groups, lists, strict=True) if rank in ranks)


def given_group(plan: Plan, rank: int, group: dist.ProcessGroup) -> dist.ProcessGroup | None:
    """The same where the caller has made it. Raises RankError for one of other ranks than share the sequence."""
    wanted = next(list(ranks) for ranks in plan.layout.sequence_groups if rank in ranks)
    found = dist.get_process_group_ranks(group)
    if found != wanted:
        raise RankError(
            f"the group given for rank {rank} has the ranks {found}; the plan shares its sequence among {wanted}",
            "give the group of those ranks, or none",
        )
    return group if len(wanted) > 1 else None
