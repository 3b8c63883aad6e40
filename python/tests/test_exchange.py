"""The all-to-all handlers among threads that stand for the ranks of a sequence group, for every kind of head map."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fpdt.ops.exchange import RankHeads, to_heads, to_sequence
from fpdt.plan.data import HeadMap
from tests.handler_calls import Group, GroupRuntime
from tests.head_maps import QKV, context, head_map_of, lists_of, num_heads

HEAD_DIM, LOCAL_ROWS = 3, 5
SIZES = [(8, 4), (8, 2), (8, 1)]
CASES = [(ranks, *heads) for ranks in (1, 2, 4, 8) for heads in SIZES] + [
    (6, 12, 4),
    (4, 6, 6),
    (4, 6, 2),
    (8, 28, 4),
    (1, 6, 2),
]
SCATTERED = HeadMap(((3, 0, -1), (1, -1, 2)), ((1, 1, 0), (0, 0, 1)))
TANGLED = HeadMap(((0, 1, 2, 3), (4, 5, -1, -1)), ((0, 1, 0, 2), (0, 0, 2, 2)))
LONELY = HeadMap(((2, -1, 0, 1),), ((0, 0, 1, -1),))
MAPS = [pytest.param(head_map_of(*case), id="P{}-H{}-Hkv{}".format(*case)) for case in CASES]
MAPS += [
    pytest.param(SCATTERED, id="scattered"),
    pytest.param(TANGLED, id="tangled"),
    pytest.param(LONELY, id="one rank, copies and padding"),
]


class Rank(GroupRuntime):
    """Message and target must be whole and contiguous, as NCCL wants them."""

    bytes_to_others = 0

    def all_to_all(self, out: Tensor, in_: Tensor) -> None:
        size = len(self.group.sent)
        assert out.is_contiguous() and in_.is_contiguous() and out.numel() == in_.numel() and out.dtype == in_.dtype
        assert size > 1, "one rank alone needs no collective"
        self.bytes_to_others += in_.numel() * in_.element_size() * (size - 1) // size
        super().all_to_all(out, in_)


def nan_like(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.full(shape, float("nan"), dtype=dtype)


def rows_of(rank: int) -> slice:
    return slice(rank * LOCAL_ROWS, (rank + 1) * LOCAL_ROWS)


def expected_heads(x: Tensor, heads: tuple[int, ...]) -> Tensor:
    """All rows of the listed heads, zeros for -1, by indexing."""
    padded = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
    return padded[:, list(heads)]


def expected_sum(gradients: Sequence[Tensor], lists: RankHeads, rank: int, dtype: torch.dtype) -> Tensor:
    """What a rank gets back: its rows of every piece of a head, added in fp32 one after the other."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    total = torch.zeros(LOCAL_ROWS, num_heads(lists), HEAD_DIM, dtype=wide)
    for gradient, heads in zip(gradients, lists, strict=True):
        for place, head in enumerate(heads):
            if head >= 0:
                total[:, head] += gradient[rows_of(rank), place].to(wide)
    return total.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_map", MAPS)
def test_ranks_get_all_tokens_of_their_heads_and_zeros_for_padding(head_map: HeadMap, dtype: torch.dtype) -> None:
    ranks, lists = len(head_map.query), lists_of(head_map)
    whole = [torch.randn(ranks * LOCAL_ROWS, num_heads(side), HEAD_DIM).to(dtype) for side in lists]

    def work(rank: Rank) -> None:
        local = tuple(x[rows_of(rank.rank)].clone() for x in whole)
        expected = [expected_heads(x, side[rank.rank]) for x, side in zip(whole, lists, strict=True)]
        heads = tuple(nan_like(tuple(x.shape), dtype) for x in expected)
        to_heads(context("toHeads", head_map, QKV, rank), local, heads)
        assert all(torch.equal(actual, wanted) for actual, wanted in zip(heads, expected, strict=True))
        assert all(torch.equal(x, y[rows_of(rank.rank)]) for x, y in zip(local, whole, strict=True)), "reads changed"
        assert rank.bytes_to_others == sum(x.numel() * x.element_size() for x in heads) * (ranks - 1) // ranks

    Group(ranks).run_as(Rank, work)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("head_map", MAPS)
def test_gradients_of_copies_are_summed_in_rank_order(head_map: HeadMap, dtype: torch.dtype) -> None:
    """Bit for bit, for dq, dk, dv; what padded heads hold (NaN here) reaches nobody."""
    ranks, lists = len(head_map.query), lists_of(head_map)
    gradients = [[gradient_of(ranks, side[rank], dtype) for rank in range(ranks)] for side in lists]

    def work(rank: Rank) -> None:
        reads = tuple(side[rank.rank].clone() for side in gradients)
        writes = tuple(nan_like((LOCAL_ROWS, num_heads(side), HEAD_DIM), dtype) for side in lists)
        to_sequence(context("toSequence", head_map, QKV, rank), reads, writes)
        for side, pieces, write in zip(lists, gradients, writes, strict=True):
            assert torch.equal(write, expected_sum(pieces, side, rank.rank, dtype))
        for read, pieces in zip(reads, gradients, strict=True):
            assert torch.equal(read.nan_to_num(), pieces[rank.rank].nan_to_num()), "reads changed"
        assert rank.bytes_to_others == sum(x.numel() * x.element_size() for x in reads) * (ranks - 1) // ranks

    Group(ranks).run_as(Rank, work)


def gradient_of(ranks: int, heads: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    gradient = torch.randn(ranks * LOCAL_ROWS, len(heads), HEAD_DIM).to(dtype)
    gradient[:, [place for place, head in enumerate(heads) if head < 0]] = float("nan")
    return gradient


@pytest.mark.parametrize("head_map", MAPS)
def test_there_and_back_is_the_identity_on_queries(head_map: HeadMap) -> None:
    ranks = len(head_map.query)

    def work(rank: Rank) -> None:
        local = torch.randn(LOCAL_ROWS, num_heads(head_map.query), HEAD_DIM)
        heads = nan_like((ranks * LOCAL_ROWS, len(head_map.query[0]), HEAD_DIM), torch.float32)
        back = torch.full_like(local, float("nan"))
        to_heads(context("toHeads", head_map, ["query"], rank), (local,), (heads,))
        to_sequence(context("toSequence", head_map, ["query"], rank), (heads,), (back,))
        assert torch.equal(back, local)

    Group(ranks).run_as(Rank, work)


def test_pieces_of_bf16_are_not_rounded_in_between() -> None:
    """256 + 1 + 1 ... would stay 256 in bf16; in fp32 it is 263, and one cast makes 264."""
    head_map = HeadMap(tuple((rank,) for rank in range(8)), ((0,),) * 8)

    def work(rank: Rank) -> float:
        read = torch.full((8, 1, 1), 256.0 if rank.rank == 0 else 1.0, dtype=torch.bfloat16)
        write = torch.empty(1, 1, 1, dtype=torch.bfloat16)
        to_sequence(context("toSequence", head_map, ["keyValue"], rank), (read,), (write,))
        return float(write)

    assert Group(8).run_as(Rank, work) == [264.0] * 8
