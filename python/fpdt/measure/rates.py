"""Achieved rates of one rank: the worker's own kernels on a run's own shapes, timed while every rank is busy.

Rates are in the planner's units (src/predict, src/catalog): FLOPs count what the causal mask leaves, a linear layer
forward and backward is 2 and 4 times rows * inputs * outputs, and bytes are those of an op's views and temporaries,
each written and read once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from fpdt.attention import CAUSAL, FULL, AttentionConfig, backend_named, merge_partial
from fpdt.measure.host_rates import disk_rates, host_rates
from fpdt.measure.probe import Probe, Shapes, Timer, timed
from fpdt.ops import exchange

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
    """Forward and backward of a layer's attention and its token-wise part at these kernel rates, for one rank."""
    attention = _attention_flops(shapes)
    forward, backward = rates["attentionForwardFlops"], rates["attentionBackwardFlops"]
    token_wise = shapes.num_chunks * 4 * TokenWise(shapes).forward_flops
    return attention / forward + 2.5 * attention / backward + token_wise / rates["matmulFlops"]


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
    own = (shapes.own_heads, shapes.own_kv_heads, shapes.own_kv_heads)
    whole = (shapes.num_heads, shapes.num_kv_heads, shapes.num_kv_heads)
    reads = tuple(torch.randn(shapes.local_rows, count, shapes.head_dim) for count in whole)
    writes = tuple(torch.empty(shapes.chunk_tokens, count, shapes.head_dim) for count in own)
    context = _exchange_context(shapes)
    seconds = timer.mean(lambda: exchange.to_heads(context, reads, writes), collective=True)
    num_bytes = sum(write.numel() * write.element_size() for write in writes)
    sent = num_bytes * (ranks - 1) / ranks if ranks > 1 else num_bytes
    return {"commBytes": sent / max(seconds - latency, 1e-9), "commLatencySeconds": latency}


def _exchange_context(shapes: Shapes) -> Any:
    """What exchange.to_heads reads of its context."""
    head_map = SimpleNamespace(
        query=_dealt(shapes.num_heads, shapes.own_heads, shapes.num_ranks),
        key_value=_dealt(shapes.num_kv_heads, shapes.own_kv_heads, shapes.num_ranks),
    )
    op = SimpleNamespace(id=0, kind="toHeads", pair_heads=("query", "keyValue", "keyValue"))
    return SimpleNamespace(
        op=op, engine=SimpleNamespace(head_map=head_map), runtime=SimpleNamespace(all_to_all=_all_to_all)
    )


def _dealt(num_heads: int, num_own: int, num_ranks: int) -> tuple[tuple[int, ...], ...]:
    """Heads of every rank in order, some on several where there are not enough: which ones does not matter here."""
    places = num_own * num_ranks
    return tuple(tuple((rank * num_own + i) * num_heads // places for i in range(num_own)) for rank in range(num_ranks))


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
    return 2 * size**3 / min(timed(lambda: a @ b) for _ in range(num_repeats))
