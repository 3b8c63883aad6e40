"""Kernels against the reference, on a few rows of what a run will ask for: a wrong one is refused before it trains.

fpdt/rounding.py says how far is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fpdt.attention.base import (
    CAUSAL,
    FULL,
    AttentionBackend,
    AttentionConfig,
    AttentionError,
    Mask,
    MaskName,
)
from fpdt.attention.merge import merge_partial
from fpdt.attention.reference import ReferenceAttention
from fpdt.rounding import DTYPE_ROUNDINGS, HALVES, Finding, finding

_HALF_LSE_ERROR = 2.0**-10
"""Scores of halves are summed in fp32, with exponentials of fewer digits."""
_SCORE_DEVIATION = 2.0


@dataclass(frozen=True)
class Work:
    """What a run asks of its kernels: heads of a rank, its masks, and by mask the rows that a tile would leave over."""

    heads: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    configs: frozenset[AttentionConfig]
    masks: frozenset[tuple[MaskName, int | None]]
    tile: int
    """Rows that kernels work in: a test has one tile of queries and two of keys, and"""
    left_over: frozenset[int]
    """what keys of the run leave over whole tiles, one of these at a time."""


class _Case(NamedTuple):
    mask: Mask
    queries: tuple[int, int]
    keys: tuple[int, int]


def check_kernels(forward: AttentionBackend, backward: AttentionBackend, work: Work, device: torch.device) -> str:
    """One line that says how far the kernels were from the reference. Raises AttentionError where that is too far."""
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    worst = Finding("", 0.0, 1.0)
    for config in sorted(work.configs, key=str):
        for name, window in sorted(work.masks, key=str):
            for case in (case for rest in sorted(work.left_over) for case in _cases(name, window, work.tile, rest)):
                for found in _check(forward, backward, case, config, work, device):
                    kernel = forward.name if found.what in ("o", "lse") else backward.name
                    what = f"{found.what} under the mask {name}"
                    if not found.is_right:
                        raise _refusal(kernel, chip, what, found)
                    if found.share >= worst.share:
                        worst = Finding(f"{what} of {kernel}", found.distance, found.tolerance)
    names = " and ".join(dict.fromkeys((forward.name, backward.name)))
    masks = ", ".join(sorted({name for name, _ in work.masks}))
    return (
        f"attention kernel {names} on {chip} agrees with the reference (masks: {masks}): largest distance "
        f"{worst.distance:.1e} in {worst.what}, {worst.tolerance:.1e} may be rounding"
    )


def _refusal(kernel: str, chip: str, what: str, found: Finding) -> AttentionError:
    others = [name for name in ("cudnn", "flash2", "reference") if name != kernel] if chip != "cpu" else ["reference"]
    return AttentionError(
        f"attention kernel {kernel} on {chip} is wrong: {what} is {found.distance:.2e} from the reference, "
        f"rounding explains {found.tolerance:.1e}",
        f"plan with another kernel (--attention {' or '.join(others)}), or change the version of PyTorch",
    )


def _cases(name: MaskName, window: int | None, tile: int, left_over: int) -> Iterator[_Case]:
    """A tile of queries against two of keys; for a window also keys that end before the queries."""
    queries, keys = tile + left_over, 2 * tile + left_over
    if name == "full":
        yield _Case(FULL, (keys, keys + queries), (0, keys))
    elif name == "square":
        yield _Case(CAUSAL, (queries, 2 * queries), (queries, 2 * queries))
    elif name == "rectangle":
        yield _Case(CAUSAL, (keys - queries, keys), (0, keys))
    else:
        assert window is not None
        mask = Mask("window", min(window, tile + tile // 2))
        yield _Case(mask, (keys - queries, keys), (0, keys))
        yield _Case(mask, (keys, keys + queries), (0, keys))


def _check(
    forward: AttentionBackend,
    backward: AttentionBackend,
    case: _Case,
    config: AttentionConfig,
    work: Work,
    device: torch.device,
) -> Iterator[Finding]:
    q, k, v, do = _inputs(case, config, work, device)
    reference = ReferenceAttention()
    place = (config, case.mask, case.queries[0], case.keys[0])
    exact = reference.forward(q.double(), k.double(), v.double(), *place)
    rounded = reference.forward(q, k, v, *place)
    o, lse = forward.forward(q, k, v, *place, out=torch.full_like(q, float("nan")))
    yield finding("o", o, exact[0], rounded[0], work.dtype)
    yield _lse_finding(lse, exact[1], work.dtype)
    o, lse = _merged(exact, q, k, v, config)
    final = o.to(work.dtype).contiguous()
    heads_first = lse.to(torch.promote_types(work.dtype, torch.float32)).t().contiguous().t()
    found = backward.backward(do, q, k, v, final, heads_first, *place)
    wide = (do.double(), q.double(), k.double(), v.double(), final.double())
    right = reference.backward(*wide, lse, *place)
    near = reference.backward(do, q, k, v, final, heads_first, *place)
    for name, values in zip(("dq", "dk", "dv"), zip(found, right, near, strict=True), strict=True):
        yield finding(name, *values, work.dtype)


def _inputs(case: _Case, config: AttentionConfig, work: Work, device: torch.device) -> tuple[Tensor, ...]:
    """q, k, v, do, the same on every rank; scores before a softcap have a deviation of two, whatever the scale."""
    generator = torch.Generator().manual_seed(1)
    rows = {name: end - start for name, (start, end) in (("q", case.queries), ("k", case.keys))}
    shapes = ((rows["q"], work.heads), (rows["k"], work.kv_heads), (rows["k"], work.kv_heads), (rows["q"], work.heads))
    q, k, v, do = (torch.randn(*shape, work.head_dim, generator=generator, dtype=torch.float64) for shape in shapes)
    q *= _SCORE_DEVIATION / (abs(config.scale) * work.head_dim**0.5)
    return tuple(x.to(device, work.dtype) for x in (q, k, v, do))


def _merged(
    part: tuple[Tensor, Tensor], q: Tensor, k: Tensor, v: Tensor, config: AttentionConfig
) -> tuple[Tensor, Tensor]:
    """o and lse in fp64 with more keys, all of which every query sees: backward is given more than its own part."""
    o, lse = (x.clone() for x in part)
    other = ReferenceAttention().forward(
        q.double(), k.double().flip(0).neg(), v.double().flip(0), config, FULL, k.shape[0], 0
    )
    merge_partial(o, lse, *other)
    return o, lse


def _lse_finding(found: Tensor, exact: Tensor, dtype: torch.dtype) -> Finding:
    """The largest difference, since exp(lse) is a factor of all that is merged; -inf where a row sees no key."""
    blind = exact == float("-inf")
    wrong = bool(((found == float("-inf")) != blind).any())
    difference = float((found.double() - exact).masked_fill(blind, 0).abs().max())
    size = max(1.0, float(exact.masked_fill(blind, 0).abs().max()))
    tolerance = _HALF_LSE_ERROR if dtype in HALVES else DTYPE_ROUNDINGS[False] * torch.finfo(dtype).eps * size
    return Finding("lse", float("inf") if wrong else difference, tolerance)
