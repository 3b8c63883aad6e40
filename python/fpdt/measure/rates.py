"""Achieved rates of one rank: the worker's own kernels on a run's own shapes, timed while every rank is busy.

Rates are in the planner's units (src/predict, src/catalog): FLOPs count what the causal mask leaves, a linear layer
forward and backward is 2 and 4 times rows * inputs * outputs, and bytes are those that element-wise kernels read and
write, one after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from fpdt.attention import CAUSAL, FULL, AttentionConfig, backend_named, merge_partial
from fpdt.measure.host_rates import disk_rates, host_rates
from fpdt.measure.probe import Probe, Shapes, Timer, timed

T = TypeVar("T")

CACHE_BYTES = 32 << 20
SMALL_COLLECTIVES_PER_LAYER = 4
"""Of ZeRO-3 outside gather and reduce: norms, overflow checks and barriers; an estimate."""


def measure_rates(shapes: Shapes, seconds: float, disk_folder: Path | None = None) -> dict[str, float]:
    """The `rates` of a ClusterSpec, measured by this rank; takes about `seconds`. All ranks call it together."""
    disk = partial(disk_rates, folder=disk_folder)
    probes = (attention_rates, matmul_rate, memory_rate, copy_rates, exchange_rates, overheads, host_rates, disk)
    return _measure(probes, shapes, Timer(seconds, num_measurements=18 + (0 if disk_folder is None else 2)))


def measure_kernel_rates(shapes: Shapes, seconds: float) -> dict[str, float]:
    """Those that a step's time mostly is made of; otherwise as `measure_rates`."""
    return _measure((attention_rates, matmul_rate), shapes, Timer(seconds, num_measurements=6))


def layer_seconds(shapes: Shapes, rates: Mapping[str, float]) -> float:
    """Forward, forward again and backward of a layer's products, and its attention, at these rates, for one rank."""
    attention = _attention_flops(shapes)
    forward, backward = rates["attentionForwardFlops"], rates["attentionBackwardFlops"]
    products = shapes.num_chunks * 4 * _product_flops(shapes)
    return attention / forward + 2.5 * attention / backward + products / rates["matmulFlops"]


def _measure(probes: Sequence[Probe], shapes: Shapes, timer: Timer) -> dict[str, float]:
    torch.manual_seed(0)
    rates: dict[str, float] = {}
    for probe in probes:
        dist.barrier()
        rates.update(probe(shapes, timer))
    return rates


def attention_rates(shapes: Shapes, timer: Timer) -> dict[str, float]:
    """Of all chunk pairs of a sequence: one causal square per chunk, and the squares below it."""
    backend, config = backend_named("cpu_flash"), AttentionConfig(scale=shapes.head_dim**-0.5)
    rows, u = shapes.chunk_tokens, shapes.num_chunks
    q, do = (torch.randn(rows, shapes.own_heads, shapes.head_dim) for _ in range(2))
    k, v = (torch.randn(rows, shapes.own_kv_heads, shapes.head_dim) for _ in range(2))
    seconds = {"forward": 0.0, "backward": 0.0}
    for mask, count in ((CAUSAL, u), (FULL, u * (u - 1) // 2)):
        where = (config, mask, 0, 0)
        o, lse = backend.forward(q, k, v, *where)
        seconds["forward"] += count * timer.mean(partial(backend.forward, q, k, v, *where))
        seconds["backward"] += count * timer.mean(partial(backend.backward, do, q, k, v, o, lse, *where))
    flops = _attention_flops(shapes)
    return {
        "attentionForwardFlops": flops / seconds["forward"],
        "attentionBackwardFlops": 2.5 * flops / seconds["backward"],
    }


def _attention_flops(shapes: Shapes) -> float:
    """Of a rank's heads of one layer, forward, over a whole sequence."""
    rows, u = shapes.chunk_tokens, shapes.num_chunks
    pairs = u * rows * (rows + 1) / 2 + u * (u - 1) / 2 * rows * rows
    return 4 * pairs * shapes.own_heads * shapes.head_dim


def matmul_rate(shapes: Shapes, timer: Timer) -> dict[str, float]:
    """Of the products of a layer, on rows that are not in a cache: forward, and both gradients."""
    weights = [torch.randn(*size) for size in _weight_sizes(shapes)]
    inputs = {
        size: _cold(partial(torch.randn, shapes.local_rows, size), shapes.local_rows * size)
        for size in {size for weight in weights for size in weight.shape}
    }
    totals = [torch.zeros_like(weight) for weight in weights]

    def forward() -> None:
        for weight in weights:
            functional.linear(next(inputs[weight.shape[1]]), weight)

    def backward() -> None:
        for weight, total in zip(weights, totals, strict=True):
            dy = next(inputs[weight.shape[0]])
            total.addmm_(dy.t(), next(inputs[weight.shape[1]]))
            dy @ weight

    return {"matmulFlops": 3 * _product_flops(shapes) / (timer.mean(forward) + timer.mean(backward))}


def _weight_sizes(shapes: Shapes) -> list[tuple[int, int]]:
    """Of q, k, v, output, gate, up and down of a Llama layer."""
    hidden, width = shapes.hidden, shapes.mlp_width
    queries, keys = shapes.num_heads * shapes.head_dim, shapes.num_kv_heads * shapes.head_dim
    return [(queries, hidden), *[(keys, hidden)] * 2, (hidden, queries), *[(width, hidden)] * 2, (hidden, width)]


def _product_flops(shapes: Shapes) -> int:
    """Of a layer's products forward, on a chunk."""
    return 2 * shapes.local_rows * sum(rows * columns for rows, columns in _weight_sizes(shapes))


def memory_rate(shapes: Shapes, timer: Timer) -> dict[str, float]:
    """Bytes that kernels read and write, as src/catalog counts them: of a merge, and of a layer's own kernels."""
    rows, heads, dim = shapes.chunk_tokens, shapes.own_heads, shapes.head_dim
    parts = _cold(lambda: (torch.randn(rows, heads, dim), torch.randn(rows, heads)), rows * heads * dim)
    merged = rows * heads * (20 * dim + 68)
    layer = ElementWise(shapes)
    seconds = timer.mean(lambda: merge_partial(*next(parts), *next(parts))) + timer.mean(layer.run)
    return {"memoryBytes": (merged + layer.num_bytes) / seconds}


class ElementWise:
    """What a Llama layer does to rows beside its products: a norm, a rotation, a gated activation and a sum."""

    def __init__(self, shapes: Shapes) -> None:
        rows, hidden, width, dim = shapes.local_rows, shapes.hidden, shapes.mlp_width, shapes.head_dim
        self._x = _cold(lambda: torch.randn(rows, hidden), rows * hidden)
        self._q = _cold(lambda: torch.randn(rows, shapes.num_heads, dim), rows * shapes.num_heads * dim)
        self._gate = _cold(lambda: torch.randn(rows, width), rows * width)
        self._weight, self._cos, self._sin = torch.ones(hidden), torch.ones(rows, 1, dim // 2), torch.ones(1)
        self.num_bytes = 4 * rows * ((7 + 3) * hidden + 7 * shapes.num_heads * dim + (2 + 3) * width)

    def run(self) -> None:
        x, gate = next(self._x), next(self._gate)
        x + self._weight * (x * x.square().mean(-1, keepdim=True).add_(1e-5).rsqrt_())
        self._rotate(next(self._q))
        functional.silu(gate) * next(self._gate)

    def _rotate(self, x: Tensor) -> None:
        y, half = torch.empty_like(x), x.shape[-1] // 2
        for ours, other in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
            torch.mul(x[..., ours], self._cos, out=y[..., ours]).sub_(x[..., other] * self._sin)


def _cold(make: Callable[[], T], num_elements: int) -> Iterator[T]:
    """Endless turns through more instances of `num_elements` fp32 each than a cache holds."""
    instances = [make() for _ in range(max(2, CACHE_BYTES // (4 * num_elements)))]
    return itertools.cycle(instances)


def copy_rates(shapes: Shapes, timer: Timer) -> dict[str, float]:
    """Of one chunk of keys. Both pools are ordinary memory here, so the two directions differ only by chance."""
    rows, row = shapes.chunk_tokens, shapes.own_kv_heads * shapes.head_dim
    pairs = _cold(lambda: (torch.zeros(rows, row), torch.zeros(rows, row)), 2 * rows * row)

    def copy() -> None:
        target, source = next(pairs)
        target.copy_(source)

    num_bytes = 4 * rows * row
    return {
        "h2dBytes": num_bytes / timer.mean(copy),
        "d2hBytes": num_bytes / timer.mean(copy),
        "duplexBytes": 0.0,
    }


def exchange_rates(shapes: Shapes, timer: Timer) -> dict[str, float]:
    """Of the message of a chunk's queries on their way to heads; and the latency of an all-to-all of one byte."""
    ranks = shapes.num_ranks
    tiny_in, tiny_out = torch.zeros(ranks, dtype=torch.uint8), torch.zeros(ranks, dtype=torch.uint8)
    latency = timer.mean(lambda: _all_to_all(tiny_out, tiny_in), collective=True)
    read, write = (torch.zeros(shapes.chunk_tokens, shapes.own_heads, shapes.head_dim) for _ in range(2))
    seconds = timer.mean(lambda: _all_to_all(write, read), collective=True)
    num_bytes = write.numel() * write.element_size()
    sent = num_bytes * (ranks - 1) / ranks if ranks > 1 else num_bytes
    return {"commBytes": sent / max(seconds - latency, 1e-9), "commLatencySeconds": latency}


def _all_to_all(out: Tensor, in_: Tensor) -> None:
    if dist.get_world_size() == 1:
        out.copy_(in_)
    else:
        dist.all_to_all_single(out.view(-1).view(torch.uint8), in_.view(-1).view(torch.uint8))


def overheads(shapes: Shapes, timer: Timer) -> dict[str, float]:
    """A kernel of one number, an AdamW step of the owned parameters, and the small collectives of a DeepSpeed step."""
    small = torch.zeros(2, 1)
    launch = timer.mean(lambda: small[0:1].copy_(small[1:2]))
    owned = max(1, shapes.num_parameters // shapes.num_ranks)
    parameter = torch.nn.Parameter(torch.randn(owned))
    parameter.grad = torch.randn(owned)
    optimizer = torch.optim.AdamW([parameter])
    step = timer.mean(optimizer.step)
    total = torch.zeros(1)
    collective = timer.mean(lambda: dist.all_reduce(total), collective=True)
    return {
        "launchSeconds": launch,
        "optimizerSecondsPerParameter": step / owned,
        "stepOverheadSeconds": SMALL_COLLECTIVES_PER_LAYER * (shapes.num_layers + 2) * collective,
    }


def peak_matmul_flops(num_repeats: int = 10) -> float:
    """FLOP/s of a large fp32 product on this rank at its fastest, what MFU is measured against."""
    size = 512
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    return 2 * size**3 / min(timed(lambda: a @ b) for _ in range(num_repeats))
