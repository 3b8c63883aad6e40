"""What attention and a side stream cost each other, by priority; the host's costs; how far the host may run ahead."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fpdt.attention import CAUSAL, AttentionConfig, backend_named
from gpu.attention_cases import attention_cases, run_case
from gpu.context import Context

BLOCKED_SECONDS = 1e-3
BOUND = 0.01
NUM_COPIES, NUM_EVENTS = 4, 1000


@dataclass(frozen=True)
class Side:
    """What runs beside attention: copies inside the device, and between it and the host."""

    device: tuple[Tensor, Tensor]
    host: tuple[Tensor, Tensor]

    def inside(self) -> None:
        for _ in range(NUM_COPIES):
            self.device[0].copy_(self.device[1])

    def both_ways(self) -> None:
        for _ in range(NUM_COPIES):
            self.device[0].copy_(self.host[0], non_blocking=True)
            self.host[1].copy_(self.device[1], non_blocking=True)


def run(context: Context) -> None:
    attention, side = attention_of(context), side_of(context)
    attention()
    context.lines.add(
        "overlapAlone", attentionSeconds=context.seconds(attention), insideSeconds=context.seconds(side.inside)
    )
    for priority in (0, -1):
        for name, work in (("inside", side.inside), ("bothWays", side.both_ways)):
            times = beside(context, attention, work, priority)
            context.lines.add("overlap", side=name, priority=priority, **times)
    context.lines.add("hostCosts", **host_costs(context))
    context.lines.add("queue", launchesUntilBlocked=queue_depth(context))
    case = attention_cases(context.table)[0]
    sketches = run_case(case, backend_named(context.sizes["kernel"]), context.device.torch, torch.bfloat16)
    context.compare("attention after it", f"attention-{case.name}", sketches, BOUND)


def attention_of(context: Context) -> Callable[[], object]:
    sizes, device = context.sizes, context.device.torch
    kernel, rows, dim = backend_named(sizes["kernel"]), sizes["rows"], sizes["headDim"]
    q = torch.randn(rows, sizes["heads"], dim, dtype=torch.bfloat16, device=device)
    k, v = (torch.randn(rows, sizes["kvHeads"], dim, dtype=torch.bfloat16, device=device) for _ in range(2))
    config = AttentionConfig(scale=dim**-0.5)
    return lambda: kernel.forward(q, k, v, config, CAUSAL, 0, 0)


def side_of(context: Context) -> Side:
    size, device = context.sizes["copyBytes"], context.device.torch
    inside = tuple(torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    host = tuple(torch.zeros(size, dtype=torch.uint8) for _ in range(2))
    for memory in host:
        context.device.register(memory)
    return Side(inside, host)  # type: ignore[arg-type]


def beside(
    context: Context, attention: Callable[[], object], work: Callable[[], None], priority: int
) -> dict[str, float]:
    """The side stream is given its work when attention has been; when did each end, on the host's clock?"""
    device = context.device
    stream, ends = device.stream(priority), {}
    device.synchronize()
    start = time.perf_counter()
    attention()
    with device.use(stream):
        work()
        side_end = device.event()
        side_end.record()
    side_end.synchronize()
    ends["sideSeconds"] = time.perf_counter() - start
    device.synchronize()
    ends["allSeconds"] = time.perf_counter() - start
    return ends


def host_costs(context: Context) -> dict[str, float]:
    """Microseconds of the host for one call of each kind."""
    device = context.device
    stream, tiny = device.stream(0), torch.zeros(1, device=device.torch)
    event = device.event()

    def entered() -> None:
        with device.use(stream):
            pass

    calls: dict[str, Callable[[], Any]] = {
        "recordMicroseconds": event.record,
        "waitMicroseconds": event.wait,
        "streamContextMicroseconds": entered,
        "kernelMicroseconds": lambda: tiny.add_(1),
    }
    return {name: 1e6 * mean_seconds(context, call) for name, call in calls.items()}


def mean_seconds(context: Context, call: Callable[[], Any]) -> float:
    context.device.synchronize()
    start = time.perf_counter()
    for _ in range(NUM_EVENTS):
        call()
    found = (time.perf_counter() - start) / NUM_EVENTS
    context.device.synchronize()
    return found


def queue_depth(context: Context) -> int | None:
    """Kernels that the host could launch behind a long one before a launch took long itself; None: all of them."""
    tiny = torch.zeros(1, device=context.device.torch)
    context.device.synchronize()
    context.device.sleep(context.sizes["sleepCycles"])
    for number in range(context.sizes["launches"]):
        start = time.perf_counter()
        tiny.add_(1)
        if time.perf_counter() - start > BLOCKED_SECONDS:
            return number
    return None
