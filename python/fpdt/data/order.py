"""An order that seed and epoch give, the same with every version of numpy, on every machine."""

from __future__ import annotations

import numpy as np

from fpdt.data.tokens import Int64

GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def shuffled(count: int, seed: int, epoch: int) -> Int64:
    """The numbers 0 .. count - 1 sorted by a hash of seed, epoch and number; int64."""
    start = np.uint64((_mix((seed + 1) * GOLDEN & MASK) + epoch * GOLDEN) & MASK)
    with np.errstate(over="ignore"):
        keys = _finalize(np.arange(count, dtype=np.uint64) * np.uint64(GOLDEN) + _finalize(np.array([start])))
    # Numbers times an odd one, and what mixes them, are one to one: no keys are equal, and any sort gives this order.
    return np.argsort(keys).astype(np.int64, copy=False)


def _mix(value: int) -> int:
    return int(_finalize(np.array([value], dtype=np.uint64))[0])


def _finalize(keys: np.typing.NDArray[np.uint64]) -> np.typing.NDArray[np.uint64]:
    """splitmix64 (Steele, Lea, Flood 2014), modulo 2^64."""
    with np.errstate(over="ignore"):
        keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
