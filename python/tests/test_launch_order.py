"""The order in which the host launches ops: legal, near the plan's, and in longer stretches on one stream."""

from __future__ import annotations

import itertools
import random

import pytest

from fpdt.devices.launch_order import MAX_AHEAD, launch_order


def test_copies_into_two_slots_come_in_pairs() -> None:
    """Attention on stream 0 of what stream 1 fetched; the third fetch and the next wait until a slot is free."""
    streams = [1, 1, *[0, 1] * 4]
    waits = [(), (), *itertools.chain.from_iterable([(fetch,), (attn,)] for fetch, attn in _pairs())]
    assert launch_order(streams, waits) == [0, 1, 2, 4, 3, 5, 6, 8, 7, 9]


def test_what_is_alone_on_its_stream_stays_in_order() -> None:
    assert launch_order([2] * 4, [(), (0,), (), ()]) == [0, 1, 2, 3]
    assert launch_order([], []) == []


def test_no_op_comes_too_early() -> None:
    streams = [1, *[0] * (3 * MAX_AHEAD)]
    order = launch_order(streams, [()] * len(streams))
    assert order.index(0) == MAX_AHEAD


@pytest.mark.parametrize("seed", range(50))
def test_orders_are_legal(seed: int) -> None:
    drawn = random.Random(seed)
    streams = [drawn.randrange(4) for _ in range(60)]
    waits = [[wait for wait in range(op) if drawn.random() < 0.05] for op in range(60)]
    order = launch_order(streams, waits)
    places = {op: place for place, op in enumerate(order)}
    assert sorted(order) == list(range(60))
    assert all(places[wait] < places[op] for op in range(60) for wait in waits[op])
    for stream in range(4):
        mine = [op for op in order if streams[op] == stream]
        assert mine == sorted(mine)
    for place, op in enumerate(order):
        assert op - min(order[place:]) <= MAX_AHEAD
    assert _switches([streams[op] for op in order]) <= _switches(streams)


def _pairs() -> list[tuple[int, int]]:
    """The fetch that each attention op waits for, and the attention op that the fetch behind it waits for."""
    return [(0, 2), (1, 4), (3, 6), (5, 8)]


def _switches(streams: list[int]) -> int:
    return sum(before != after for before, after in itertools.pairwise([0, *streams]))
