"""The all-to-all handlers where a rank's heads are cut into groups: one group at a time, and all of them in one op."""

from __future__ import annotations

import pytest
import torch

from fpdt.errors import PlanError
from fpdt.ops.exchange import group_geometry, to_heads, to_sequence
from fpdt.plan.data import HeadMap
from fpdt.plan.nouns import HeadGroup
from tests.handler_calls import Group
from tests.head_maps import QKV, context, head_map_of, lists_of, num_heads
from tests.test_exchange import HEAD_DIM, LOCAL_ROWS, Rank, expected_heads, expected_sum, gradient_of, nan_like, rows_of

UNEVEN = HeadMap(((0, 1, 2, 3), (4, 5, -1, -1)), ((0, 1, 0, 2), (0, 0, 2, 2)))
MAPS = [
    pytest.param(head_map_of(1, 8, 4), 4, id="one rank"),
    pytest.param(head_map_of(2, 8, 4), 2, id="shared out"),
    pytest.param(head_map_of(4, 6, 6), 2, id="padded"),
    pytest.param(UNEVEN, 2, id="copies and padding"),
]


def part(heads: tuple[int, ...], groups: int, group: int) -> tuple[int, ...]:
    size = len(heads) // groups
    return heads[group * size : (group + 1) * size]


@pytest.mark.parametrize(("head_map", "groups"), MAPS)
def test_a_group_moves_alone(head_map: HeadMap, groups: int) -> None:
    """There its heads alone, back with zeros for all others."""
    for group in range(groups):
        move(head_map, HeadGroup(groups=groups, group=group))


def move(head_map: HeadMap, heads: HeadGroup) -> None:
    ranks, lists = len(head_map.query), lists_of(head_map)
    whole = [torch.randn(ranks * LOCAL_ROWS, num_heads(side), HEAD_DIM) for side in lists]
    of_group = [tuple(part(own, heads.groups, heads.group or 0) for own in side) for side in lists]
    gradients = [[gradient_of(ranks, own, torch.float32) for own in side] for side in of_group]

    def work(rank: Rank) -> None:
        local = tuple(x[rows_of(rank.rank)].clone() for x in whole)
        expected = [expected_heads(x, side[rank.rank]) for x, side in zip(whole, of_group, strict=True)]
        found = tuple(nan_like(tuple(x.shape), x.dtype) for x in expected)
        to_heads(context("toHeads", head_map, QKV, rank, heads), local, found)
        assert all(torch.equal(actual, wanted) for actual, wanted in zip(found, expected, strict=True))
        reads = tuple(side[rank.rank].clone() for side in gradients)
        back = tuple(nan_like(tuple(x.shape), x.dtype) for x in local)
        to_sequence(context("toSequence", head_map, QKV, rank, heads), reads, back)
        for side, pieces, write in zip(of_group, gradients, back, strict=True):
            wanted = torch.zeros_like(write)
            wanted[:, : num_heads(side)] = expected_sum(pieces, side, rank.rank, torch.float32)
            assert torch.equal(write, wanted)

    Group(ranks).run_as(Rank, work)


@pytest.mark.parametrize(("head_map", "groups"), MAPS)
def test_all_groups_there_and_back_are_the_identity_on_queries(head_map: HeadMap, groups: int) -> None:
    ranks, own = len(head_map.query), len(head_map.query[0]) // groups

    def work(rank: Rank) -> None:
        heads = HeadGroup(groups=groups)
        local = torch.randn(LOCAL_ROWS, num_heads(head_map.query), HEAD_DIM)
        sharded = tuple(nan_like((ranks * LOCAL_ROWS, own, HEAD_DIM), torch.float32) for _ in range(groups))
        back = torch.full_like(local, float("nan"))
        to_heads(context("toHeads", head_map, ["query"], rank, heads), (local,), sharded)
        to_sequence(context("toSequence", head_map, ["query"] * groups, rank, heads), sharded, (back,))
        assert torch.equal(back, local)

    Group(ranks).run_as(Rank, work)


@pytest.mark.parametrize(("groups", "group"), [(3, 0), (2, 2)])
def test_groups_of_unequal_size_are_refused(groups: int, group: int) -> None:
    with pytest.raises(PlanError, match=f"4 heads of a rank have no group {group} of {groups} of equal size"):
        group_geometry(head_map_of(2, 8, 8).query, groups, group)
