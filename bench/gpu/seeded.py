"""Numbers that are the same on every machine, and exact in bf16: bytes of SHAKE-256."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def seeded(name: str, shape: Sequence[int], device: torch.device, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """Uniform in [-2, 2) times `scale`, a power of two, in steps of 1/64 of it."""
    count = math.prod(shape)
    raw = np.frombuffer(hashlib.shake_256(name.encode()).digest(count), dtype=np.int8)
    return torch.from_numpy(raw.reshape(shape).astype(np.float32)).to(device, dtype).mul_(scale / 64)


def power_of_two(value: float) -> float:
    """The next below."""
    return float(2.0 ** math.floor(math.log2(value)))
