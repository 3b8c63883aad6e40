"""Steps of a session, counted from 0, in which what costs time is measured too: the first, and then one in so many."""

from __future__ import annotations

FIRST_STEPS = 3
MEMORY_EVERY = 16
OPS_EVERY = 32


def samples_memory(step: int) -> bool:
    """Live bytes on the CPU, where tracking takes a sixth of a step."""
    return step < FIRST_STEPS or step % MEMORY_EVERY == 0


def samples_ops(step: int) -> bool:
    """Times of ops on a GPU, where two events an op more than double the calls that the host makes."""
    return step < FIRST_STEPS or step % OPS_EVERY == 0
