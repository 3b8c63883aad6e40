"""Achieved rates of one rank: the worker's own kernels on a run's own shapes, timed while every rank is busy.

Rates are in the cost model's units (src/schedule/cost.ts, src/catalog/flops.ts): FLOPs count what the causal mask
leaves, a linear layer forward and backward is 2 and 4 times rows * inputs * outputs, and bytes are those of an op's
views and temporaries, each written and read once.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from fpdt.attention import AttentionConfig, backend_named, merge_partial
from fpdt.ops import exchange
from fpdt.plan.data import HeadMap

T = TypeVar("T")

MAX_REPEATS = 2000
CACHE_BYTES = 32 << 20
SMALL_COLLECTIVES_PER_LAYER = 4
"""Of ZeRO-3 outside gather and reduce: norms, overflow checks and barriers; an estimate."""


@dataclass(frozen=True)
class Shapes:
    """Sizes of a run as one rank sees them. `chunk_tokens` is the global chunk, shared by `num_ranks` ranks."""

    hidden: int
    mlp_width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_layers: int
    num_parameters: int
    chunk_tokens: int
    num_chunks: int
    num_ranks: int

    @property
    def local_rows(self) -> int:
        return self.chunk_tokens // self.num_ranks

    @property
    def own_heads(self) -> int:
        return self.num_heads // self.num_ranks

    @property
    def own_kv_heads(self) -> int:
        return self.num_kv_heads // self.num_ranks


class Timer:
    """Means within a time budget that is shared evenly among `num_measurements`.

    Means, not medians: a step is a sum of ops, those that were interrupted included.
    """

    def __init__(self, seconds: float, num_measurements: int) -> None:
        self._share = seconds / num_measurements

    def mean(self, body: Callable[[], object], collective: bool = False) -> float:
        """Seconds of one call, after one to warm up. Ranks repeat a collective equally often."""
        body()
        started = time.perf_counter()
        times = [_timed(body)]
        if collective:
            times += [_timed(body) for _ in range(_agreed(int(self._share / max(times[0], 1e-7))))]
        while not collective and len(times) < MAX_REPEATS and time.perf_counter() - started < self._share:
            times.append(_timed(body))
        return statistics.fmean(times)


def _timed(body: Callable[[], object]) -> float:
    started = time.perf_counter()
    body()
    return time.perf_counter() - started


def _agreed(repeats: int) -> int:
    count = torch.tensor([min(repeats, MAX_REPEATS)])
    dist.all_reduce(count, op=dist.ReduceOp.MIN)
    return int(count[0])


def measure_rates(shapes: Shapes, seconds: float) -> dict[str, float]:
    """The `rates` of a ClusterSpec, measured by this rank; takes about `seconds`. All ranks call it together."""
    timer = Timer(seconds, num_measurements=16)
    torch.manual_seed(0)
    rates: dict[str, float] = {}
    for measure in (attention_rates, matmul_rate, memory_rate, copy_rates, exchange_rates, overheads):
        dist.barrier()
        rates.update(measure(shapes, timer))
    return rates


def attention_rates(shapes: Shapes, timer: Timer) -> dict[str, float]:
    """Of all chunk pairs of a sequence: one causal square per chunk, and the squares below it."""
    backend, config = backend_named("cpu_flash"), AttentionConfig(scale=shapes.head_dim**-0.5)
    rows, u = shapes.chunk_tokens, shapes.num_chunks
    q, do = (torch.randn(rows, shapes.own_heads, shapes.head_dim) for _ in range(2))
    k, v = (torch.randn(rows, shapes.own_kv_heads, shapes.head_dim) for _ in range(2))
    below = u * (u - 1) // 2
    flops = 4 * (u * rows * (rows + 1) / 2 + below * rows * rows) * shapes.own_heads * shapes.head_dim
    seconds = {"forward": 0.0, "backward": 0.0}
    for causal, count in ((True, u), (False, below)):
        o, lse = backend.forward(q, k, v, config, causal)
        seconds["forward"] += count * timer.mean(partial(backend.forward, q, k, v, config, causal))
        seconds["backward"] += count * timer.mean(partial(backend.backward, do, q, k, v, o, lse, config, causal))
    return {
        "attentionForwardFlops": flops / seconds["forward"],
        "attentionBackwardFlops": 2.5 * flops / seconds["backward"],
    }


def matmul_rate(shapes: Shapes, timer: Timer) -> dict[str, float]:
    """Of the token-wise part of a layer, on rows that are not in a cache: forward, then rerun with its gradients."""
    layer = TokenWise(shapes)
    inputs = _cold(lambda: torch.randn(shapes.local_rows, shapes.hidden), shapes.local_rows * shapes.hidden)
    upstream = torch.randn(shapes.local_rows, shapes.hidden)

    def forward() -> None:
        with torch.no_grad():
            layer.run(next(inputs))

    def backward() -> None:
        x = next(inputs).requires_grad_()
        torch.autograd.grad(layer.run(x), [x, *layer.weights], upstream)

    return {"matmulFlops": 4 * layer.forward_flops / (timer.mean(forward) + timer.mean(backward))}


class TokenWise:
    """A Llama layer without its attention: norms, q, k, v with rotary embedding, output projection, gated MLP."""

    def __init__(self, shapes: Shapes) -> None:
        hidden, width, self.dim = shapes.hidden, shapes.mlp_width, shapes.head_dim
        queries, keys = shapes.num_heads * self.dim, shapes.num_kv_heads * self.dim
        sizes = [(queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries), (width, hidden), (width, hidden)]
        self.weights = [torch.randn(*size, requires_grad=True) for size in [*sizes, (hidden, width)]]
        self.angles = torch.randn(shapes.local_rows, 1, self.dim)
        self.forward_flops = 2 * shapes.local_rows * sum(weight.numel() for weight in self.weights)

    def run(self, x: Tensor) -> Tensor:
        q, k, v, out, gate, up, down = self.weights
        normed = functional.rms_norm(x, x.shape[-1:])
        query, key = (self._rotated(functional.linear(normed, weight)) for weight in (q, k))
        mixed = query + (key.sum() + functional.linear(normed, v).sum())
        x = x + functional.linear(mixed, out)
        normed = functional.rms_norm(x, x.shape[-1:])
        return x + functional.linear(
            functional.silu(functional.linear(normed, gate)) * functional.linear(normed, up), down
        )

    def _rotated(self, x: Tensor) -> Tensor:
        heads = x.view(x.shape[0], -1, self.dim)
        half = torch.cat((-heads[..., self.dim // 2 :], heads[..., : self.dim // 2]), dim=-1)
        rotated: Tensor = heads * self.angles.cos() + half * self.angles.sin()
        return rotated.flatten(1)


def memory_rate(shapes: Shapes, timer: Timer) -> dict[str, float]:
    """Of merging a partial attention result: the views, and the temporaries that catalog/scratch.ts lists."""
    rows, heads, dim = shapes.chunk_tokens, shapes.own_heads, shapes.head_dim
    parts = _cold(lambda: (torch.randn(rows, heads, dim), torch.randn(rows, heads)), rows * heads * dim)
    views = 3 * 4 * rows * heads * (dim + 1)
    temporaries = 4 * rows * heads * (dim + 4)
    seconds = timer.mean(lambda: merge_partial(*next(parts), *next(parts)))
    return {"memoryBytes": (views + 2 * temporaries) / seconds}


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
    """Of q, k, v of a chunk on their way to heads, packing included; and the latency of an all-to-all of one byte."""
    ranks = shapes.num_ranks
    tiny_in, tiny_out = torch.zeros(ranks, dtype=torch.uint8), torch.zeros(ranks, dtype=torch.uint8)
    latency = timer.mean(lambda: _all_to_all(tiny_out, tiny_in), collective=True)
    context, num_bytes = _exchange_context(shapes)
    seconds = timer.mean(lambda: exchange.to_heads(context), collective=True)
    sent = num_bytes * (ranks - 1) / ranks if ranks > 1 else num_bytes
    return {"commBytes": sent / max(seconds - latency, 1e-9), "commLatencySeconds": latency}


def _exchange_context(shapes: Shapes) -> tuple[Any, int]:
    """What exchange.to_heads reads of its context, and the bytes of its reads."""
    ranks, local, rows, dim = shapes.num_ranks, shapes.local_rows, shapes.chunk_tokens, shapes.head_dim
    heads = (shapes.num_heads, shapes.num_kv_heads, shapes.num_kv_heads)
    reads = tuple(torch.randn(local, count, dim) for count in heads)
    writes = tuple(torch.empty(rows, count // ranks, dim) for count in heads)
    head_map = HeadMap(_contiguous(shapes.num_heads, ranks), _contiguous(shapes.num_kv_heads, ranks))
    extra = SimpleNamespace(head_map=head_map)
    context = SimpleNamespace(
        reads=reads, writes=writes, runtime=SimpleNamespace(all_to_all=_all_to_all), bound=SimpleNamespace(extra=extra)
    )
    return cast(Any, context), sum(read.numel() * read.element_size() for read in reads)


def _contiguous(heads: int, ranks: int) -> tuple[tuple[int, ...], ...]:
    share = heads // ranks
    return tuple(tuple(range(rank * share, (rank + 1) * share)) for rank in range(ranks))


def _all_to_all(out: Tensor, in_: Tensor) -> None:
    if dist.get_world_size() == 1:
        out.copy_(in_)
    else:
        dist.all_to_all_single(out.view(-1).view(torch.uint8), in_.view(-1).view(torch.uint8))


def overheads(shapes: Shapes, timer: Timer) -> dict[str, float]:
    """An op without work, an AdamW step of the owned parameters, and the small collectives of a DeepSpeed step."""
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
        "launchSeconds": 4 * launch,
        "optimizerSecondsPerParameter": step / owned,
        "stepOverheadSeconds": SMALL_COLLECTIVES_PER_LAYER * (shapes.num_layers + 2) * collective,
    }


def peak_matmul_flops(num_repeats: int = 10) -> float:
    """FLOP/s of a large fp32 product on this rank at its fastest, what MFU is measured against."""
    size = 512
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    return 2 * size**3 / min(_timed(lambda: a @ b) for _ in range(num_repeats))
