"""The native copy engine (native/cuda): built where there is a compiler, called through ctypes, fed with sections.

Its interface is plain C: the library knows no Python and no torch, so one build serves all of their versions, and it
compiles in seconds, since there are no headers of torch in it.
"""

from __future__ import annotations

from fpdt.copies.build import CopiesUnavailableError, copies_library
from fpdt.copies.driver import driver_functions
from fpdt.copies.engine import HOST, CopyEngine, CopyEngineError, QueueStats
from fpdt.copies.lowering import LoweredSection, bare, lower, nothing

__all__ = [
    "HOST",
    "CopiesUnavailableError",
    "CopyEngine",
    "CopyEngineError",
    "LoweredSection",
    "QueueStats",
    "bare",
    "copies_library",
    "driver_functions",
    "lower",
    "nothing",
]
