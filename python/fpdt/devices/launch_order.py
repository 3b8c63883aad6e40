"""In which order the host launches the ops of a section: the plan's, but for longer stretches on one stream.

What an op waits for comes before it, and each stream keeps its order, so that the device may do nothing that it might
not do anyway. Every change of stream that is left out saves the host a call.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

MAX_AHEAD = 8
"""Places by which an op may come before others that the plan has first. They start later by what it takes the host to
launch so many; more would save next to nothing."""


def launch_order(streams: Sequence[int], waits: Sequence[Sequence[int]]) -> list[int]:
    """Ops by number. `streams`: of every op the place of its stream, `waits` the earlier ops that it waits for."""
    left: defaultdict[int, deque[int]] = defaultdict(deque)
    for op, place in enumerate(streams):
        left[place].append(op)
    is_launched, order, first, current = [False] * len(streams), list[int](), 0, 0
    while len(order) < len(streams):
        while is_launched[first]:
            first += 1
        ahead = left[current]
        if not ahead or ahead[0] - first > MAX_AHEAD or not all(is_launched[wait] for wait in waits[ahead[0]]):
            current = streams[first]
        op = left[current].popleft()
        is_launched[op] = True
        order.append(op)
    return order
