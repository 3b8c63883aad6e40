"""Attention over parts of the keys, merged, against attention over all of them."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from fpdt.attention import CAUSAL, FULL, AttentionBackend, backend_named, merge_partial
from tests.attention_cases import (
    CONFIG,
    DTYPES,
    NO_KEY,
    TOLERANCE,
    WHOLE,
    Case,
    case_id,
    exact,
    largest_error,
    on_cpu,
    tensors,
)


def parts_of(case: Case, cuts: list[int]) -> list[Case]:
    """The same attention over keys cut at `cuts`: of a causal one only the last part has a mask."""
    edges = [case.keys[0], *sorted(set(cuts)), case.keys[1]]
    parts = []
    for start, end in itertools.pairwise(edges):
        if case.mask.kind == "causal" and end < case.keys[1]:
            parts.append(Case("full", FULL, case.queries, (start, end)))
        elif case.mask.kind == "causal":
            parts.append(
                Case("square" if start == case.queries[0] else "rectangle", CAUSAL, case.queries, (start, end))
            )
        else:
            parts.append(case._replace(keys=(start, end)))
    return parts


# Tiles no shorter than the queries, which is what flash2 can mask.
LONG_TILES = [[9, 18, 27, 40], [11, 31], [20, 40], [40]]


def random_cuts(case: Case, seed: int) -> list[int]:
    """Anywhere for a window, up to the first query otherwise."""
    generator = random.Random(seed)
    last = case.keys[1] - 1 if case.mask.kind == "window" else case.queries[0]
    return generator.sample(range(1, last), generator.randint(1, 6))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("case", WHOLE, ids=case_id)
def test_any_split_of_the_keys_merges_to_the_whole(case: Case, seed: int, dtype: torch.dtype) -> None:
    check_parts(backend_named("reference"), case, random_cuts(case, seed), dtype, seed)


@pytest.mark.parametrize("cuts", LONG_TILES, ids=str)
@pytest.mark.parametrize(
    ("name", "case"),
    [("flash2", case) for case in WHOLE]
    + [("flash3", case) for case in WHOLE]
    + [("flash4", case) for case in WHOLE[:2]],
    ids=case_id,
)
def test_tiles_merge_to_the_whole_with_flash_attention(name: str, case: Case, cuts: list[int]) -> None:
    cuts = [cut for cut in cuts if cut < case.keys[1]]
    with on_cpu(name):
        check_parts(backend_named(name), case, cuts, torch.bfloat16, seed=1)


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name in ("cpu_flash", "cudnn") for dtype in DTYPES[name]], ids=case_id
)
@pytest.mark.parametrize("cuts", [[40], [7, 40], [1, 2, 39, 40]], ids=str)
def test_the_diagonal_and_what_comes_before_merge_to_the_whole(cuts: list[int], name: str, dtype: torch.dtype) -> None:
    with on_cpu(name):
        check_parts(backend_named(name), WHOLE[1], cuts, dtype, seed=1)


def check_parts(backend: AttentionBackend, case: Case, cuts: list[int], dtype: torch.dtype, seed: int) -> None:
    """Parts in random order, o and gradients summed in fp32 as the plan's accumulators do."""
    q, k, v, do = tensors(case, 6, 2, dtype)
    expected_o, expected_lse, expected_grads = exact(case, q, k, v, do)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    parts = parts_of(case, cuts)
    random.Random(seed).shuffle(parts)
    o, lse = torch.zeros(q.shape, dtype=wide), torch.full(q.shape[:2], NO_KEY, dtype=wide)
    for part in parts:
        rows = slice(*part.keys)
        merge_partial(o, lse, *backend.forward(q, k[rows], v[rows], CONFIG, part.mask, part.queries[0], part.keys[0]))
    assert largest_error(o, expected_o) < TOLERANCE[dtype]
    assert largest_error(lse, expected_lse) < TOLERANCE[dtype]
    final = o.to(dtype)
    dq, dk, dv = (torch.zeros(x.shape, dtype=wide) for x in (q, k, v))
    for part in parts:
        rows, start = slice(*part.keys), (part.queries[0], part.keys[0])
        grads = backend.backward(do, q, k[rows], v[rows], final, lse, CONFIG, part.mask, *start)
        for total, grad in zip((dq, dk[rows], dv[rows]), grads, strict=True):
            total += grad
    for total, expected in zip((dq, dk, dv), expected_grads, strict=True):
        assert largest_error(total, expected) < TOLERANCE[dtype]
