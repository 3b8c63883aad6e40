"""Attention cases for every mask, with softmax attention written out in fp64 to compare with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fpdt.attention import CAUSAL, FULL, AttentionConfig, Mask
from tests.fake_cudnn import cudnn_on_cpu
from tests.fake_flash import flash_on_cpu

HEAD_DIM = 32
CONFIG = AttentionConfig(scale=HEAD_DIM**-0.5)
NO_KEY = float("-inf")

# Largest errors seen over these tests, each times about 3; relative to the largest exact value (x86-64, torch 2.13).
TOLERANCE = {torch.float64: 1e-14, torch.float32: 5e-6, torch.bfloat16: 3e-2, torch.float16: 4e-3}


HALVES = [torch.bfloat16, torch.float16]
DTYPES = {
    "reference": list(TOLERANCE),
    "cpu_flash": list(TOLERANCE),
    "flash2": HALVES,
    "cudnn": HALVES,
    "flash3": HALVES,
    "flash4": HALVES,
}


def on_cpu(name: str) -> AbstractContextManager[Any]:
    """Stands in for the ops of a kernel that has none on the CPU, while it lasts."""
    if name.startswith("flash"):
        return flash_on_cpu(int(name[-1]))
    return cudnn_on_cpu() if name == "cudnn" else nullcontext()


class Case(NamedTuple):
    """Queries [q_start, q_end) and keys [kv_start, kv_end) by global position."""

    name: str
    mask: Mask
    queries: tuple[int, int]
    keys: tuple[int, int]


def window(size: int, queries: tuple[int, int], keys: tuple[int, int]) -> Case:
    return Case("window", Mask("window", size), queries, keys)


CASES = [
    Case("full", FULL, (20, 27), (0, 20)),
    Case("full", FULL, (5, 22), (0, 3)),
    Case("square", CAUSAL, (0, 17), (0, 17)),
    Case("square", CAUSAL, (33, 34), (33, 34)),
    Case("rectangle", CAUSAL, (14, 23), (0, 23)),
    Case("rectangle", CAUSAL, (22, 23), (3, 23)),
    window(5, (14, 23), (0, 23)),  # ends with the queries
    window(1, (6, 11), (6, 11)),  # everyone sees himself alone
    window(64, (14, 23), (2, 23)),  # reaches further than the keys
    window(12, (14, 23), (3, 14)),  # the tile before the queries
    window(7, (14, 23), (3, 14)),  # of which the last queries see nothing
    window(3, (14, 23), (3, 14)),
    window(17, (18, 27), (3, 11)),  # with a gap to the queries
    window(8, (18, 27), (3, 11)),
    window(7, (18, 27), (3, 11)),  # nobody sees anything
    window(6, (3, 14), (7, 14)),  # the first queries come before the keys
    window(4, (3, 14), (7, 12)),  # and the last after the window
    window(9, (12, 13), (4, 13)),  # one query
    window(9, (20, 21), (4, 13)),
]
WHOLE = [
    Case("full", FULL, (40, 49), (0, 40)),
    Case("rectangle", CAUSAL, (40, 49), (0, 49)),
    window(13, (40, 49), (0, 49)),
    window(2, (40, 49), (0, 49)),
]


def case_id(case: object) -> str:
    if not isinstance(case, Case):
        return str(case).removeprefix("torch.")
    size = f"{case.mask.window}" if case.mask.window else ""
    return f"{case.name}{size}-q{case.queries}-k{case.keys}".replace(" ", "")


def tensors(case: Case, heads: int, kv_heads: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v, do."""
    generator = torch.Generator().manual_seed(1000 * heads + case.queries[1])
    num_queries, num_keys = case.queries[1] - case.queries[0], case.keys[1] - case.keys[0]
    shapes = [(num_queries, heads), (num_keys, kv_heads), (num_keys, kv_heads), (num_queries, heads)]
    q, k, v, do = (torch.randn(*s, HEAD_DIM, generator=generator, dtype=torch.float64).to(dtype) for s in shapes)
    return q, k, v, do


def exact(
    case: Case, q: Tensor, k: Tensor, v: Tensor, do: Tensor, config: AttentionConfig = CONFIG
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """o, lse and (dq, dk, dv) in fp64, a query and a head at a time, over the keys it sees."""
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v)]
    query, key, value = leaves
    group = q.shape[1] // k.shape[1]
    o = torch.zeros(q.shape, dtype=torch.float64)
    lse = torch.full(q.shape[:2], NO_KEY, dtype=torch.float64)
    total = query.sum() * 0 + key.sum() * 0 + value.sum() * 0
    for i in range(q.shape[0]):
        seen = [j for j in range(k.shape[0]) if sees(case.mask, case.queries[0] + i, case.keys[0] + j)]
        if not seen:
            continue
        for head in range(q.shape[1]):
            scores = key[seen, head // group] @ query[i, head] * config.scale
            if config.softcap is not None:
                scores = config.softcap * torch.tanh(scores / config.softcap)
            row = torch.softmax(scores, dim=0) @ value[seen, head // group]
            o[i, head], lse[i, head] = row.detach(), torch.logsumexp(scores.detach(), dim=0)
            total = total + row @ do[i, head].double()
    return o, lse, list(torch.autograd.grad(total, leaves))


def sees(mask: Mask, query: int, key: int) -> bool:
    if mask.kind == "full":
        return True
    return key <= query and (mask.window is None or query - key < mask.window)


def largest_error(actual: Tensor, expected: Tensor) -> float:
    """Relative to the largest expected value, or to 1 where all are smaller: inputs are standard normal."""
    return float((actual.double() - expected).abs().max() / expected.abs().max().clamp(min=1))
