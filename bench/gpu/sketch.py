"""Sketches of tensors: the norm and 64 seeded projections, from which the distance to another tensor can be told.

A projection is a^T X b with a and b of random signs, whose square has the mean |X|^2 (2-norm): the distance of two
tensors is read off the difference of their sketches, to about a fifth of itself. Signs come from SHAKE-256 of the
tensor's name, so that they are the same on every machine and in every version of every library.
"""

from __future__ import annotations

import hashlib
import math
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

NUM_PROJECTIONS = 64
ROWS_AT_ONCE = 8192


class Sketch(TypedDict):
    norm: float
    projections: list[float]


Sketches = dict[str, Sketch]


def sketch(name: str, tensor: Tensor) -> Sketch:
    """Where the tensor is, in fp64."""
    matrix = tensor.detach().reshape(1, -1) if tensor.dim() < 2 else tensor.detach().flatten(1)
    rows, columns = matrix.shape
    left, right = _signs(f"{name}/rows", rows, matrix.device), _signs(f"{name}/columns", columns, matrix.device)
    found = torch.zeros(NUM_PROJECTIONS, dtype=torch.float64, device=matrix.device)
    square = torch.zeros((), dtype=torch.float64, device=matrix.device)
    for start in range(0, rows, ROWS_AT_ONCE):
        block = matrix[start : start + ROWS_AT_ONCE].double()
        found += ((block @ right.T.double()) * left[:, start : start + ROWS_AT_ONCE].T).sum(dim=0)
        square += block.square().sum()
    return {"norm": math.sqrt(float(square)), "projections": found.tolist()}


def with_loss(sketches: Sketches, loss: float | None) -> Sketches:
    """The loss belongs to a run's gradients, and is held against the reference with them; None: it was no number."""
    value = torch.tensor(math.nan if loss is None else loss, dtype=torch.float64)
    return {**sketches, "loss": sketch("loss", value)}


def relative_distance(found: Sketch, reference: Sketch) -> float:
    """|found - reference| / |reference|; the distance itself where the reference is 0. NaN where something is."""
    pairs = zip(found["projections"], reference["projections"], strict=True)
    distance = math.sqrt(sum((a - b) ** 2 for a, b in pairs) / NUM_PROJECTIONS)
    return distance / reference["norm"] if reference["norm"] > 0 else distance


def worst_distance(found: Sketches, reference: Sketches) -> tuple[float, str]:
    """The largest relative distance and whose it is. A tensor that one of them lacks, or a NaN, is infinitely far."""
    if found.keys() != reference.keys():
        return math.inf, f"names differ: {sorted(found.keys() ^ reference.keys())[:4]}"
    worst, where = 0.0, ""
    for name, mine in found.items():
        distance = relative_distance(mine, reference[name])
        if not distance <= worst:
            worst, where = (distance if math.isfinite(distance) else math.inf), name
        if worst == math.inf:
            break
    return worst, where


def _signs(seed: str, count: int, device: torch.device) -> Tensor:
    """[64, count] of +1 and -1."""
    num_bytes = -(-NUM_PROJECTIONS * count // 8)
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(seed.encode()).digest(num_bytes), dtype=np.uint8))
    signs = torch.from_numpy(bits[: NUM_PROJECTIONS * count].reshape(NUM_PROJECTIONS, count)).to(device)
    return signs.to(torch.float32).mul_(2).sub_(1)
