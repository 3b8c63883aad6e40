"""Attention backends against softmax attention written out in fp64, under every mask, whole and in parts.

FlashAttention-2 runs on a CPU stand-in of its two ops that has the kernel's own rules for masks (fake_flash2).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from fpdt.attention import (
    BACKENDS,
    CAPABILITIES,
    CAUSAL,
    FULL,
    AttentionBackend,
    AttentionConfig,
    AttentionError,
    Mask,
    backend_named,
    merge_partial,
)
from tests.fake_flash2 import Named, flash2_on_cpu

HEAD_DIM = 16
CONFIG = AttentionConfig(scale=HEAD_DIM**-0.5)
NO_KEY = float("-inf")

# Largest errors seen over these tests, each times about 3; relative to the largest exact value (x86-64, torch 2.13).
TOLERANCE = {torch.float64: 1e-14, torch.float32: 5e-6, torch.bfloat16: 3e-2}
DTYPES = {"reference": list(TOLERANCE), "cpu_flash": list(TOLERANCE), "flash2": [torch.bfloat16]}


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


@pytest.fixture(autouse=True)
def flash2_calls() -> Iterator[list[Named]]:
    with flash2_on_cpu() as calls:
        yield calls


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


def exact(case: Case, q: Tensor, k: Tensor, v: Tensor, do: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
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
            scores = key[seen, head // group] @ query[i, head] * CONFIG.scale
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


def runs(cases: list[Case]) -> list[tuple[str, Case, torch.dtype]]:
    return [
        (name, case, dtype)
        for name in BACKENDS
        for case in cases
        if case.name in CAPABILITIES[name]
        for dtype in DTYPES[name]
    ]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (5, 1)])
@pytest.mark.parametrize(("name", "case", "dtype"), runs(CASES), ids=case_id)
def test_values_and_gradients_of_every_mask(
    name: str, case: Case, dtype: torch.dtype, heads: int, kv_heads: int
) -> None:
    q, k, v, do = tensors(case, heads, kv_heads, dtype)
    before = [x.clone() for x in (q, k, v, do)]
    expected_o, expected_lse, expected_grads = exact(case, q, k, v, do)
    backend, start = backend_named(name), (case.queries[0], case.keys[0])
    o, lse = backend.forward(q, k, v, CONFIG, case.mask, *start)
    assert (o.shape, o.dtype, lse.shape) == (q.shape, dtype, q.shape[:2])
    assert lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    blind = expected_lse == NO_KEY
    assert torch.equal(lse == NO_KEY, blind), "exactly the rows without a key have lse = -inf"
    assert not o[blind].any()
    assert largest_error(o, expected_o) < TOLERANCE[dtype]
    assert largest_error(lse.exp(), expected_lse.exp()) < TOLERANCE[dtype], "0 where no key is seen"
    grads = backend.backward(do, q, k, v, o, lse, CONFIG, case.mask, *start)
    unseen = (expected_grads[2] == 0).flatten(1).all(dim=1)
    nothing = (blind.all(dim=1), unseen, unseen)
    for grad, expected, like, zero_rows in zip(grads, expected_grads, (q, k, v), nothing, strict=True):
        assert (grad.shape, grad.dtype) == (like.shape, dtype)
        assert largest_error(grad, expected) < TOLERANCE[dtype]
        assert not grad[zero_rows].any(), "what sees or is seen by nothing has no gradient"
    assert all(torch.equal(x, y) for x, y in zip((q, k, v, do), before, strict=True)), "inputs changed"


# --- parts of the keys, merged -----------------------------------------------------------------------------------


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


WHOLE = [
    Case("full", FULL, (40, 49), (0, 40)),
    Case("rectangle", CAUSAL, (40, 49), (0, 49)),
    window(13, (40, 49), (0, 49)),
    window(2, (40, 49), (0, 49)),
]
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
@pytest.mark.parametrize("case", WHOLE, ids=case_id)
def test_tiles_merge_to_the_whole_with_flash2(case: Case, cuts: list[int]) -> None:
    cuts = [cut for cut in cuts if cut < case.keys[1]]
    check_parts(backend_named("flash2"), case, cuts, torch.bfloat16, seed=1)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("cuts", [[40], [7, 40], [1, 2, 39, 40]], ids=str)
def test_the_diagonal_and_what_comes_before_merge_to_the_whole_with_cpu_flash(
    cuts: list[int], dtype: torch.dtype
) -> None:
    check_parts(backend_named("cpu_flash"), WHOLE[1], cuts, dtype, seed=1)


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


# --- what backends have, and refuse ------------------------------------------------------------------------------


def test_capabilities_are_those_of_the_contract() -> None:
    everything = {"full", "square", "rectangle", "window"}
    expected = {"reference": everything, "cpu_flash": {"full", "square"}, "flash2": everything}
    assert expected == CAPABILITIES


def some(
    num_queries: int,
    num_keys: int,
    kv_heads: int = 2,
    head_dim: int = HEAD_DIM,
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v of zeros; 4 query heads."""
    q = torch.zeros(num_queries, 4, head_dim, dtype=dtype)
    k = torch.zeros(num_keys, kv_heads, head_dim, dtype=dtype)
    return q, k, k.clone()


@pytest.mark.parametrize("name", BACKENDS)
def test_errors_name_what_is_wrong(name: str) -> None:
    backend = backend_named(name)
    with pytest.raises(AttentionError, match="4 query heads do not divide over 3"):
        backend.forward(*some(8, 8, kv_heads=3), CONFIG, FULL, 0, 0)
    with pytest.raises(AttentionError, match=r"has no softcap, but the model has 30\.0"):
        backend.forward(*some(8, 8), AttentionConfig(1.0, softcap=30.0), FULL, 0, 0)
    for keys, kv_start in ((8, 0), (4, 8), (7, 9)):
        with pytest.raises(AttentionError, match="keys that end with the queries and begin no later"):
            backend.forward(*some(8, keys), CONFIG, CAUSAL, 8, kv_start)
    with pytest.raises(AttentionError, match=r"keys \(0, 9\) of a window must not end after its queries \(0, 8\)"):
        backend.forward(*some(8, 9), CONFIG, Mask("window", 4), 0, 0)


@pytest.mark.parametrize(("mask", "missing"), [(CAUSAL, "rectangle"), (Mask("window", 4), "window")])
def test_a_mask_that_a_backend_does_not_have_is_refused_by_name(mask: Mask, missing: str) -> None:
    q, k, v = some(4, 8)
    with pytest.raises(AttentionError, match=f"'cpu_flash' has no mask '{missing}' .* only full, square") as caught:
        backend_named("cpu_flash").forward(q, k, v, CONFIG, mask, 4, 0)
    assert "'reference'" in caught.value.hint
    with pytest.raises(AttentionError, match=f"'cpu_flash' has no mask '{missing}'"):
        backend_named("cpu_flash").backward(q, q, k, v, q, torch.zeros(4, 4), CONFIG, mask, 4, 0)


def test_flash2_refuses_what_the_kernel_cannot() -> None:
    backend = backend_named("flash2")
    with pytest.raises(AttentionError, match=r"takes bfloat16 or float16, got torch\.float32"):
        backend.forward(*some(8, 8, dtype=torch.float32), CONFIG, FULL, 0, 0)
    for head_dim in (12, 264):
        with pytest.raises(AttentionError, match=f"takes head dims of 8, 16, .. 256, got {head_dim}"):
            backend.forward(*some(8, 8, head_dim=head_dim), CONFIG, FULL, 0, 0)
    for num_keys in (3, 6):
        with pytest.raises(
            AttentionError, match=rf"cannot mask {num_keys} keys from 0 on for queries \[8, 16\) in one"
        ):
            backend.forward(*some(8, num_keys), CONFIG, Mask("window", 100), 8, 0)
    backend.forward(*some(8, 7), CONFIG, Mask("window", 100), 8, 0)


def test_unknown_names_and_masks() -> None:
    with pytest.raises(AttentionError, match="unknown attention backend 'flash3'") as caught:
        backend_named("flash3")
    assert caught.value.hint == "expected one of reference, cpu_flash, flash2"
    with pytest.raises(AttentionError, match="unknown mask 'sliding'"):
        Mask("sliding")  # type: ignore[arg-type]
    with pytest.raises(AttentionError, match="mask 'window' with window=None"):
        Mask("window")
    with pytest.raises(AttentionError, match="mask 'causal' with window=4"):
        Mask("causal", 4)
    with pytest.raises(AttentionError, match="a window of 0 tokens"):
        Mask("window", 0)


# --- FlashAttention-2's own ops ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_calls_of_flash2_fit_the_schema_and_give_rows_first(case: Case) -> None:
    """On meta tensors, which have torch's own checks of arguments and shapes."""
    q, k, v, do = (x.to("meta") for x in tensors(case, 4, 2, torch.bfloat16))
    backend, start = backend_named("flash2"), (case.queries[0], case.keys[0])
    o, lse = backend.forward(q, k, v, CONFIG, case.mask, *start)
    assert (o.shape, lse.shape, lse.dtype) == (q.shape, q.shape[:2], torch.float32)
    grads = backend.backward(do, q, k, v, o, lse, CONFIG, case.mask, *start)
    assert [grad.shape for grad in grads] == [q.shape, k.shape, v.shape]


def test_arguments_of_flash2(flash2_calls: list[Named]) -> None:
    """The window's sizes in the kernel's words; a negative size would mean no limit."""
    asked: list[tuple[int, bool, int | None, int | None]] = []
    for case in (WHOLE[0], WHOLE[1], window(5, (14, 23), (0, 23)), window(7, (14, 23), (3, 14))):
        q, k, v, do = tensors(case, 4, 2, torch.bfloat16)
        start = (case.queries[0], case.keys[0])
        backend = backend_named("flash2")
        o, lse = backend.forward(q, k, v, CONFIG, case.mask, *start)
        backend.backward(do, q, k, v, o, lse, CONFIG, case.mask, *start)
        forward, backward = flash2_calls[-2:]
        asked.append(mask_arguments(forward))
        assert mask_arguments(backward) == asked[-1]
        assert forward["return_debug_mask"] is False and forward["scale"] == backward["scale"] == CONFIG.scale
    assert asked == [(9, False, None, None), (9, True, None, None), (9, False, 4, 0), (6, False, 0, 6)]


def mask_arguments(call: Named) -> tuple[int, bool, int | None, int | None]:
    return call["max_q"], call["is_causal"], call["window_size_left"], call["window_size_right"]
