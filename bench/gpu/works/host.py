"""Host memory: what locking it costs, by kind of page; rates of copies, one way and both; bytes that come back."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from fpdt.devices import create_runtime
from fpdt.measure.probe import Timer
from fpdt.measure.rates import link_rates
from fpdt.plan import Plan, load_plan
from gpu.context import Context
from gpu.seeded import seeded
from gpu.sketch import Sketches, sketch

ROUND_TRIP = (1024, 64)
PIECE_BYTES = 1 << 20


def run(context: Context) -> None:
    plan = load_plan(context.plan_path(context.sizes["plan"]))
    context.compare("bytes to the device and back", "round-trip", round_trip(context.device.torch), 0.0)
    for size in context.sizes["copyBytes"]:
        context.lines.add("links", copyBytes=size, **links(context, plan, size))
    context.lines.add("crossing", **crossing(context))
    register_all(context)


def register_all(context: Context) -> None:
    """The small first, of every way; what by them would take longer than is left is not begun."""
    deadline = time.perf_counter() + context.sizes["registerSeconds"]
    seconds_per_byte = dict.fromkeys(WAYS, 0.0)
    for size in context.sizes["registerBytes"]:
        for name, make in WAYS.items():
            begun = time.perf_counter()
            has_time = begun + size * seconds_per_byte[name] < deadline
            facts = registered(context, make, size) if has_time else {"error": "no time is left"}
            seconds_per_byte[name] = max(seconds_per_byte[name], (time.perf_counter() - begun) / size)
            context.lines.add("register", memory=name, bytes=size, **facts)


def round_trip(device: torch.device) -> Sketches:
    """Bits must be equal: the bound is 0."""
    there = seeded("round-trip", ROUND_TRIP, torch.device("cpu"), torch.float32).to(device)
    return {"bytes": sketch("round-trip", there.to("cpu"))}


def links(context: Context, plan: Plan, size: int) -> dict[str, float]:
    """By the code that calibrates a machine."""
    ring = max(2 * size, 8 << 20)
    pools = [pool.model_copy(update={"bytes": 0 if pool.kind == "file" else ring}) for pool in plan.header.pools]
    runtime = create_runtime(plan.device, pools, streams=plan.streams, links=plan.header.links)
    try:
        return link_rates(runtime, Timer(runtime, context.sizes["copySeconds"], 3), size)
    finally:
        runtime.close()


def crossing(context: Context) -> dict[str, Any]:
    """Whether one copy may cross two ranges that were registered apart."""
    memory = as_bytes(mmap.mmap(-1, 2 * PIECE_BYTES))
    halves = memory[:PIECE_BYTES], memory[PIECE_BYTES:]
    codes = [context.device.register(half) for half in halves]
    try:
        target = torch.zeros(PIECE_BYTES, dtype=torch.uint8, device=context.device.torch)
        start = PIECE_BYTES // 2
        target.copy_(memory[start : start + PIECE_BYTES], non_blocking=True)
        context.device.synchronize()
        return {"codes": codes, "error": None}
    except RuntimeError as error:
        return {"codes": codes, "error": str(error)[:300]}
    finally:
        for half in halves:
            context.device.unregister(half)


def registered(context: Context, make: Callable[[int], mmap.mmap], size: int) -> dict[str, Any]:
    """Seconds to touch by one thread and by several, and then to register; what the device lost by it."""
    found: dict[str, Any] = {}
    for threads in (1, context.sizes["threads"]):
        try:
            memory = as_bytes(make(size))
        except (OSError, ValueError) as error:
            return {"error": str(error)}
        free = context.device.memory().get("freeBytes", 0)
        touched = timed(lambda memory=memory, threads=threads: touch(memory, threads))  # type: ignore[misc]
        codes: list[int] = []
        locked = timed(lambda memory=memory, codes=codes: codes.append(context.device.register(memory)))  # type: ignore[misc]
        lost = free - context.device.memory().get("freeBytes", 0)
        found[f"threads{threads}"] = {
            "touchSeconds": touched,
            "registerSeconds": locked,
            "code": codes[0],
            "hbmBytes": lost,
        }
        context.device.unregister(memory)
        del memory
    return found


def touch(memory: Tensor, threads: int) -> None:
    parts = memory.chunk(threads)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: part[::4096].fill_(1), parts))


def as_bytes(memory: mmap.mmap) -> Tensor:
    """The tensor keeps the mapping alive."""
    return torch.frombuffer(memory, dtype=torch.uint8)


def timed(body: Callable[[], object]) -> float:
    start = time.perf_counter()
    body()
    return time.perf_counter() - start


def from_memfd(size: int) -> mmap.mmap:
    file = os.memfd_create("gpu-bench")
    try:
        os.ftruncate(file, size)
        return mmap.mmap(file, size)
    finally:
        os.close(file)


def anonymous(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def huge(size: int) -> mmap.mmap:
    memory = anonymous(size)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


WAYS: dict[str, Callable[[int], mmap.mmap]] = {"memfd": from_memfd, "anonymous": anonymous, "hugepages": huge}
