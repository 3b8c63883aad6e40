"""Which cases of a test run each time and which in full rounds alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def full(*values: Any) -> Any:
    """A case of `parametrize` for `pytest -m full` alone: it asks what others ask, of another setting."""
    return pytest.param(*values, marks=pytest.mark.full)


def core(names: Iterable[str], chosen: Collection[str]) -> list[Any]:
    """Cases by name, all but the `chosen` for full rounds alone."""
    return [name if name in chosen else full(name) for name in names]
