"""fpdt worker: executes the plans that the TypeScript planner makes, op by op, and decides nothing.

Importing the package imports nothing heavy: a rank says hello before torch is loaded. What is for training loops of
other people is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fpdt.errors import FpdtError
from fpdt.version import VERSION

if TYPE_CHECKING:
    from fpdt.loop.sampler import SequenceGroupSampler, data_loader
    from fpdt.loop.stream import stream
    from fpdt.plan import load_plan

__all__ = ["FpdtError", "SequenceGroupSampler", "data_loader", "load_plan", "stream"]
__version__ = VERSION
_PLACES = {
    "SequenceGroupSampler": "fpdt.loop.sampler",
    "data_loader": "fpdt.loop.sampler",
    "load_plan": "fpdt.plan",
    "stream": "fpdt.loop.stream",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'fpdt' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
