"""How far a kernel may be from what is right: what rounding explains, and no more.

Inputs are rounded to the run's dtype, and a reference in fp64 is exact on them. What the reference in the run's dtype
misses of that is rounding; a kernel rounds more often, and adds in another order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

HALVES = (torch.bfloat16, torch.float16)
REFERENCE_ROUNDINGS = 8
DTYPE_ROUNDINGS = {True: 4, False: 32}
"""By whether the dtype is a half: errors over what is right, in the dtype's epsilon."""


class Finding(NamedTuple):
    what: str
    distance: float
    tolerance: float

    @property
    def is_right(self) -> bool:
        """NaN is no number below a tolerance."""
        return self.distance <= self.tolerance

    @property
    def share(self) -> float:
        return self.distance / self.tolerance


def finding(what: str, found: Tensor, exact: Tensor, rounded: Tensor, dtype: torch.dtype) -> Finding:
    """`exact` in fp64, `rounded`: the reference's in the precision of the run."""
    own = DTYPE_ROUNDINGS[dtype in HALVES] * torch.finfo(dtype).eps
    return Finding(what, _distance(found, exact), own + REFERENCE_ROUNDINGS * _distance(rounded, exact))


def _distance(found: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm of what is right."""
    size = float(torch.linalg.vector_norm(exact))
    return float(torch.linalg.vector_norm(found.double() - exact)) / (size or 1.0)
