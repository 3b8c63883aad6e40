"""Pieces of attention ops against every pair of positions, and against the fixtures that the planner's twin reads."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from fpdt.attention import CAUSAL, FULL, Documents, Mask
from fpdt.attention.base import mask_name
from fpdt.attention.pieces import Piece, Rows, pieces_of
from tests.planned import ROOT

CASES = json.loads((ROOT / "test/fixtures/documents.json").read_text(encoding="utf-8"))


def mask_of(case: dict[str, Any]) -> Mask:
    return Mask(**case["mask"])


def positions(found: list[int]) -> tuple[int, ...]:
    return tuple(found)


def rows(found: list[int]) -> Rows:
    start, end = found
    return start, end


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_cuts_as_the_planner_does(case: dict[str, Any]) -> None:
    starts, tokens, kv = positions(case["starts"]), rows(case["tokens"]), rows(case["kv"])
    found = pieces_of(starts, tokens, kv, mask_of(case))
    expected = [Piece(rows(one["queries"]), rows(one["keys"]), mask_of(one), one["pairs"]) for one in case["pieces"]]
    assert list(found) == expected
    documents = Documents()
    documents.begin(starts)
    assert documents.hides(np.array([tokens[0]]), np.array([kv[1]])).tolist() == [case["hidden"]]
    assert documents.pieces(tokens, kv, mask_of(case)) == found


@pytest.mark.parametrize("seed", range(300))
def test_pieces_are_the_pairs_of_one_document_that_the_mask_leaves(seed: int) -> None:
    drawn = random.Random(seed)
    starts, queries, keys, mask = draw(drawn)
    found = pieces_of(starts, queries, keys, mask)
    expected = {
        (q, k)
        for q in range(*queries)
        for k in range(*keys)
        if sees(mask, q, k) and document(starts, q) == document(starts, k)
    }
    covered = [pair for piece in found for pair in pairs_in(piece)]
    assert sorted(covered) == sorted(expected)
    assert sum(piece.pairs for piece in found) == len(expected)
    documents = Documents()
    documents.begin(starts)
    if keys[1] <= queries[0]:
        visible = documents.hides(np.array([queries[0]]), np.array([keys[1]])).tolist() == [False]
        assert visible == (document(starts, queries[0]) == document(starts, keys[1] - 1))
        assert visible or not found


@pytest.mark.parametrize("seed", range(100))
def test_pieces_lie_side_by_side_and_kernels_have_their_masks(seed: int) -> None:
    starts, queries, keys, mask = draw(random.Random(seed))
    end = queries[0]
    for piece in pieces_of(starts, queries, keys, mask):
        # Rows that see nothing are the last ones: what is left over is one slice.
        assert piece.queries[0] == end
        end = piece.queries[1]
        name = mask_name(piece.mask, piece.queries, piece.keys)
        if keys == queries and mask == CAUSAL:
            assert name == "square"
        if name == "window" and piece.keys[1] <= piece.queries[0]:
            assert end - piece.queries[0] <= piece.keys[1] - piece.keys[0]


def test_one_document_leaves_an_op_as_it_is() -> None:
    for queries, keys, mask in (
        ((8, 16), (0, 8), FULL),
        ((8, 16), (0, 16), CAUSAL),
        ((8, 16), (0, 16), Mask("window", 9)),
    ):
        (piece,) = pieces_of((0,), queries, keys, mask)
        assert piece[:3] == (queries, keys, mask)


def draw(drawn: random.Random) -> tuple[tuple[int, ...], Rows, Rows, Mask]:
    """Keys end with the queries, or before them, as those of plans do."""
    start = drawn.randint(0, 20)
    queries = (start, start + drawn.randint(1, 20))
    starts = (0, *sorted(drawn.sample(range(1, 45), drawn.randint(0, 12))))
    is_late = start > 0 and drawn.random() < 0.5
    key_start = drawn.randint(0, max(0, start - 1))
    keys = (key_start, drawn.randint(key_start + 1, start) if is_late else queries[1])
    window = Mask("window", drawn.randint(1, 30))
    return starts, queries, keys, drawn.choice((window, FULL if is_late else CAUSAL))


def sees(mask: Mask, query: int, key: int) -> bool:
    if mask.kind == "full":
        return True
    return key <= query and (mask.window is None or query - key < mask.window)


def document(starts: tuple[int, ...], position: int) -> int:
    return max(start for start in starts if start <= position)


def pairs_in(piece: Piece) -> list[tuple[int, int]]:
    return [(q, k) for q in range(*piece.queries) for k in range(*piece.keys) if sees(piece.mask, q, k)]
