"""fpdt worker: executes the plans that the TypeScript planner makes, op by op, and decides nothing.

Importing the package imports nothing heavy: a rank says hello before torch is loaded.
"""

from fpdt.version import VERSION

__version__ = VERSION
