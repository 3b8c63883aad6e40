"""Rates of one rank that a model does not decide: links, collectives, the host; timed while every rank is busy.

All of it goes through the runtime, so that a device with streams and one without are measured by the same code.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from fpdt.devices import create_runtime
from fpdt.measure.host_rates import disk_rates, host_rates
from fpdt.measure.loops import LoopOp, linked_loop
from fpdt.measure.probe import Timer
from fpdt.plan import Plan
from fpdt.run.arena import TORCH_DTYPES
from fpdt.run.runtime import Runtime

RING_BYTES = 64 << 20
"""Of memory that copies go round in, in each pool: more than a cache holds."""
NUM_MEASUREMENTS = 14
MIN_PRODUCT_SECONDS = 2e-3


@dataclass(frozen=True)
class Sizes:
    """Bytes of one copy between pools, of one message of an exchange, of a layer's weights, and of a block on disk."""

    copy_bytes: int
    exchange_bytes: int
    layer_bytes: int
    block_bytes: int


def measure_rates(
    plan: Plan, group: dist.ProcessGroup | None, sizes: Sizes, seconds: float, folder: Path | None
) -> dict[str, float]:
    """Takes about `seconds`. All ranks call it together; `group` is the sequence group."""
    ring = max(RING_BYTES, 2 * sizes.copy_bytes)
    pools = [pool.model_copy(update={"bytes": 0 if pool.kind == "file" else ring}) for pool in plan.header.pools]
    runtime = create_runtime(plan.device, pools, group, streams=plan.streams, links=plan.header.links)
    try:
        timer = Timer(runtime, seconds, NUM_MEASUREMENTS)
        rates = {"peakFlops": peak_flops(runtime, timer, TORCH_DTYPES[str(plan.run["dtype"])])}
        probes: tuple[Callable[[], dict[str, float]], ...] = (
            partial(link_rates, runtime, timer, sizes.copy_bytes),
            partial(exchange_rates, runtime, timer, group, sizes.exchange_bytes),
            partial(ring_rates, runtime, timer, sizes.layer_bytes),
            partial(host_rates, runtime, timer),
            partial(disk_rates, sizes.block_bytes, timer, folder),
        )
        for probe in probes:
            dist.barrier()
            rates.update(probe())
    finally:
        runtime.close()
    return rates


def link_rates(runtime: Runtime, timer: Timer, num_bytes: int) -> dict[str, float]:
    """Copies of each direction alone, and of both at once: the sum of what they reach then."""
    loads, stores = ([make(i) for i in range(4)] for make in _copies(runtime, num_bytes))
    alone = [timer.mean(linked_loop(runtime, ops)) for ops in (loads, stores)]
    both = timer.mean(linked_loop(runtime, [op for pair in zip(loads, stores, strict=True) for op in pair]))
    moved = len(loads) * num_bytes
    return {"h2dBytes": moved / alone[0], "d2hBytes": moved / alone[1], "duplexBytes": 2 * moved / both}


def _copies(runtime: Runtime, num_bytes: int) -> Iterator[Callable[[int], LoopOp]]:
    """Makers of copies to the device and from it; they move on through the pools, so that no cache has their bytes."""

    def views(pool: str) -> Iterator[Tensor]:
        arena = runtime.arenas[pool]
        starts = range(0, arena.num_bytes - num_bytes + 1, num_bytes)
        return itertools.cycle([arena.view(start, "bfloat16", (num_bytes // 2,), (1,)) for start in starts])

    def copy_to(dst: Iterator[Tensor], src: Iterator[Tensor]) -> Callable[..., None]:
        return lambda ctx: runtime.copy(next(dst), next(src), ctx)

    # Both directions at once use different bytes.
    hbm, host = (pool for pool, arena in runtime.arenas.items() if arena.num_bytes)
    for stream, target, source in (("h2d", hbm, host), ("d2h", host, hbm)):
        handler, place = copy_to(views(target), views(source)), runtime.streams.index(stream)
        yield lambda _, handler=handler, place=place: (handler, (), place)  # type: ignore[misc]


def exchange_rates(runtime: Runtime, timer: Timer, group: dist.ProcessGroup | None, num_bytes: int) -> dict[str, float]:
    """Of an all-to-all of the sequence group in which a rank has so many bytes; and the time of one of a byte."""
    ranks = 1 if group is None else group.size()

    def exchange(size: int) -> Callable[[], None]:
        read, write = (torch.zeros(size, dtype=torch.uint8, device=runtime.device) for _ in range(2))
        return lambda: runtime.all_to_all(write, read)

    latency = timer.mean(exchange(ranks), collective=True)
    whole = -(-num_bytes // ranks) * ranks
    seconds = timer.mean(exchange(whole), collective=True)
    sent = whole * (ranks - 1) / ranks if ranks > 1 else whole
    return {"commBytes": sent / max(seconds - latency, seconds / 10), "commLatencySeconds": latency}


def ring_rates(runtime: Runtime, timer: Timer, num_bytes: int) -> dict[str, float]:
    """Gather and reduce-scatter over all ranks: bytes that a rank sends a second, of a message's growth."""
    ranks = dist.get_world_size()
    if ranks == 1:
        return {}
    return {
        "gatherBytes": _growth(timer, ranks, num_bytes, partial(_gather, runtime.device)),
        "reduceBytes": _growth(timer, ranks, num_bytes, partial(_reduce, runtime.device)),
    }


def _growth(timer: Timer, ranks: int, num_bytes: int, make: Callable[[int], Callable[[], None]]) -> float:
    large = -(-num_bytes // (8 * ranks)) * 8 * ranks
    small = large // 8
    seconds = [timer.mean(make(size // 4), collective=True) for size in (small, large)]
    grown = max(seconds[1] - seconds[0], seconds[1] / 10)
    return (large - small) * (ranks - 1) / ranks / grown


def _gather(device: torch.device, num_elements: int) -> Callable[[], None]:
    ranks = dist.get_world_size()
    whole = torch.zeros(-(-num_elements // ranks) * ranks, device=device)
    part = torch.zeros(whole.numel() // ranks, device=device)
    return lambda: dist.all_gather_into_tensor(whole, part)


def _reduce(device: torch.device, num_elements: int) -> Callable[[], None]:
    ranks = dist.get_world_size()
    whole = torch.zeros(-(-num_elements // ranks) * ranks, device=device)
    part = torch.zeros(whole.numel() // ranks, device=device)
    return lambda: dist.reduce_scatter_tensor(part, whole)


def peak_flops(runtime: Runtime, timer: Timer, dtype: torch.dtype) -> float:
    """FLOP/s of a product at its fastest, large enough to take a while: what MFU is measured against."""
    size, seconds = 256, 0.0
    while seconds < MIN_PRODUCT_SECONDS:
        size *= 2
        a, b = (torch.randn(size, size, dtype=dtype, device=runtime.device) for _ in range(2))
        product = partial(torch.mm, a, b)
        timer.once(product)
        seconds = min(timer.once(product) for _ in range(5))
    return 2 * size**3 / seconds
