"""When a run does what it does now and then. Under a controller that says so: src/bridge/evaluations.ts."""

from __future__ import annotations


def is_due(num_done: int, num_steps: int, every: int | None) -> bool:
    """Whether an evaluation follows when so many steps are done: every so many of them, and at the end."""
    return num_done == num_steps or (every is not None and num_done > 0 and num_done % every == 0)
