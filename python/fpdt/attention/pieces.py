"""What attention has to do where documents are packed: of an op's queries and keys, those that belong together.

A pure function, with a twin in src/schedule/documents.ts; both read test/fixtures/documents.json.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fpdt.attention.base import CAUSAL, FULL, Mask

Rows = tuple[int, int]
"""Positions [start, end) in the sequence."""


class Piece(NamedTuple):
    """Queries of one document, keys of the same, and the mask between them. `pairs`: what the mask leaves of them."""

    queries: Rows
    keys: Rows
    mask: Mask
    pairs: int


def pieces_of(starts: Sequence[int], queries: Rows, keys: Rows, mask: Mask) -> tuple[Piece, ...]:
    """The pieces of an attention op, by ascending queries, which no two of them share.

    `starts` are where documents begin: ascending, the first at 0. A query outside of all pieces sees no key of the op.
    Keys are those that `mask` may have: they end with the queries, or before the first.
    """
    found: list[Piece] = []
    for number in range(bisect_right(starts, queries[0]) - 1, len(starts)):
        begin = starts[number]
        if begin >= queries[1] or begin >= keys[1]:
            break
        end = starts[number + 1] if number + 1 < len(starts) else queries[1]
        own = (max(begin, queries[0]), min(end, queries[1]))
        seen = (max(begin, keys[0]), min(own[1], keys[1]))
        found.extend(_within(own, seen, mask.window))
    return tuple(found)


def _within(queries: Rows, keys: Rows, window: int | None) -> Iterator[Piece]:
    """Inside of one document: without rows that a window hides from each other, and with the mask that is left."""
    if window is None:
        yield _piece(queries, keys, FULL if keys[1] <= queries[0] else CAUSAL)
        return
    first, last = max(keys[0], queries[0] - window + 1), min(queries[1], keys[1] - 1 + window)
    if first >= keys[1] or last <= queries[0]:
        return
    if last - first <= window:
        yield _piece((queries[0], last), (first, keys[1]), FULL if keys[1] <= queries[0] else CAUSAL)
    elif keys[1] <= queries[0] and last - queries[0] > keys[1] - first:
        # A kernel of FlashAttention cannot mask fewer keys than queries in one call: those that see all keys go first.
        middle = first + window
        yield _piece((queries[0], middle), (first, keys[1]), FULL)
        yield _piece((middle, last), (first + 1, keys[1]), Mask("window", window))
    else:
        yield _piece((queries[0], last), (first, keys[1]), Mask("window", window))


def _piece(queries: Rows, keys: Rows, mask: Mask) -> Piece:
    return Piece(queries, keys, mask, _pairs(queries, keys, mask))


def _pairs(queries: Rows, keys: Rows, mask: Mask) -> int:
    if mask.kind == "full":
        return (queries[1] - queries[0]) * (keys[1] - keys[0])
    return _pairs_up_to(queries, keys, 0) - (0 if mask.window is None else _pairs_up_to(queries, keys, mask.window))


def _pairs_up_to(queries: Rows, keys: Rows, distance: int) -> int:
    """Pairs with key <= query - distance: none for early queries, then one more for each, then all keys."""
    start, end = queries[0] - distance, queries[1] - distance
    first = max(start, keys[0])
    rising = max(0, min(end, keys[1]) - first)
    all_keys = max(0, end - max(start, keys[1]))
    return rising * (first - keys[0] + 1) + rising * (rising - 1) // 2 + all_keys * (keys[1] - keys[0])
