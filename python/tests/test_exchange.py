"""The all-to-all handlers among threads that stand for the ranks of a sequence group, for every kind of head map."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fpdt.errors import PlanError
from fpdt.ops.exchange import RankHeads, head_geometry, to_heads, to_sequence
from fpdt.plan.data import HeadMap
from fpdt.run.context import OpContext

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
Result = TypeVar("Result")


def head_map_of(ranks: int, heads: int, kv_heads: int) -> HeadMap:
    """Query heads in order, padded at the end; key/value heads shared out, replicated, or one for each query head."""
    own = -(-heads // ranks)
    query = [[h if h < heads else -1 for h in range(r * own, (r + 1) * own)] for r in range(ranks)]
    if heads % ranks == 0 and kv_heads % ranks == 0:
        own_kv = kv_heads // ranks
        key_value = [list(range(r * own_kv, (r + 1) * own_kv)) for r in range(ranks)]
    elif heads % ranks == 0 and ranks % kv_heads == 0:
        key_value = [[r * kv_heads // ranks] for r in range(ranks)]
    else:
        group = heads // kv_heads
        key_value = [[h // group if h >= 0 else -1 for h in own_heads] for own_heads in query]
    return HeadMap(tuple(map(tuple, query)), tuple(map(tuple, key_value)))


MAPS = [pytest.param(head_map_of(*case), id="P{}-H{}-Hkv{}".format(*case)) for case in CASES]
MAPS += [
    pytest.param(SCATTERED, id="scattered"),
    pytest.param(TANGLED, id="tangled"),
    pytest.param(LONELY, id="one rank, copies and padding"),
]


class Group:
    """Runs one function on every rank at once; ranks meet in all_to_all."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.sent: list[Tensor] = [torch.empty(0)] * size

    def run(self, work: Callable[[Rank], Result]) -> list[Result]:
        ranks = [Rank(self, rank) for rank in range(len(self.sent))]
        results: dict[int, Result] = {}
        errors: list[BaseException] = []

        def guarded(rank: Rank) -> None:
            try:
                results[rank.rank] = work(rank)
            except BaseException as error:
                errors.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=guarded, args=(rank,)) for rank in ranks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [results[rank] for rank in range(len(ranks))]


class Rank:
    """What handlers use of a Runtime. Message and target must be whole and contiguous, as NCCL wants them."""

    def __init__(self, group: Group, rank: int) -> None:
        self.group, self.rank, self.bytes_to_others = group, rank, 0

    def all_to_all(self, out: Tensor, in_: Tensor) -> None:
        size = len(self.group.sent)
        assert out.is_contiguous() and in_.is_contiguous() and out.numel() == in_.numel() and out.dtype == in_.dtype
        assert size > 1, "one rank alone needs no collective"
        self.bytes_to_others += in_.numel() * in_.element_size() * (size - 1) // size
        self.group.sent[self.rank] = in_
        self.group.barrier.wait()
        for target, message in zip(out.view(size, -1), self.group.sent, strict=True):
            target.copy_(message.view(size, -1)[self.rank])
        self.group.barrier.wait()


def context(kind: str, head_map: HeadMap, pair_heads: Sequence[str], rank: object) -> OpContext:
    op = SimpleNamespace(id=7, kind=kind, pair_heads=tuple(pair_heads))
    return cast(OpContext, SimpleNamespace(op=op, engine=SimpleNamespace(head_map=head_map), runtime=rank))


QKV = ("query", "keyValue", "keyValue")


def lists_of(head_map: HeadMap) -> list[RankHeads]:
    return [head_map.query, head_map.key_value, head_map.key_value]


def num_heads(lists: RankHeads) -> int:
    return 1 + max(head for heads in lists for head in heads)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
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

    Group(ranks).run(work)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
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

    Group(ranks).run(work)


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

    Group(ranks).run(work)


def test_pieces_of_bf16_are_not_rounded_in_between() -> None:
    """256 + 1 + 1 ... would stay 256 in bf16; in fp32 it is 263, and one cast makes 264."""
    head_map = HeadMap(tuple((rank,) for rank in range(8)), ((0,),) * 8)

    def work(rank: Rank) -> float:
        read = torch.full((8, 1, 1), 256.0 if rank.rank == 0 else 1.0, dtype=torch.bfloat16)
        write = torch.empty(1, 1, 1, dtype=torch.bfloat16)
        to_sequence(context("toSequence", head_map, ["keyValue"], rank), (read,), (write,))
        return float(write)

    assert Group(8).run(work) == [264.0] * 8


class CountCopies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Ops that move data or make memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        alias = func._schema.returns[0].alias_info
        is_view = alias is not None and not alias.is_write
        if not is_view:
            self.counts[func._schema.name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


class NoExchange:
    def all_to_all(self, out: Tensor, in_: Tensor) -> None:
        """Counted by its absence from the ops."""


def count_ops(kind: str, head_map: HeadMap) -> dict[str, int]:
    ranks, own = len(head_map.query), len(head_map.query[0])
    local, heads = torch.zeros(4, num_heads(head_map.query), 2), torch.zeros(4 * ranks, own, 2)
    ctx = context(kind, head_map, ["query"], NoExchange())
    with CountCopies() as mode:
        if kind == "toHeads":
            to_heads(ctx, (local,), (heads,))
        else:
            to_sequence(ctx, (heads,), (local,))
    return dict(mode.counts)


@pytest.mark.parametrize("kind", ["toHeads", "toSequence"])
def test_an_even_map_takes_one_message_and_one_copy(kind: str) -> None:
    assert count_ops(kind, head_map_of(4, 8, 8)) == {"empty_like": 1, "copy_": 1}
    assert count_ops(kind, head_map_of(1, 8, 8)) == {"copy_": 1}, "one rank copies straight"


class OneMessage:
    """Fails when the message of an earlier pair is still alive; `place` is its argument of all_to_all."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.messages: list[weakref.ref[Tensor]] = []

    def all_to_all(self, *tensors: Tensor) -> None:
        assert all(message() is None for message in self.messages)
        self.messages.append(weakref.ref(tensors[self.place]))


def test_one_message_is_alive_at_a_time() -> None:
    head_map = head_map_of(4, 8, 4)
    local = tuple(torch.zeros(2, num_heads(lists), 2) for lists in lists_of(head_map))
    heads = tuple(torch.zeros(8, len(lists[0]), 2) for lists in lists_of(head_map))
    sender, receiver = OneMessage(1), OneMessage(0)
    to_heads(context("toHeads", head_map, QKV, sender), local, heads)
    to_sequence(context("toSequence", head_map, QKV, receiver), heads, local)
    assert len(sender.messages) == len(receiver.messages) == 3


def test_consecutive_and_repeated_heads_are_one_slice() -> None:
    geometry = head_geometry(((0, 1, 2, 2, 2), (3, -1, -1, 2, 3)))
    assert [(run.rank, run.place, run.first, run.num_heads) for run in geometry.packed] == [
        (0, 0, 0, 3),
        (0, 3, 2, 2),
        (1, 0, 3, 1),
        (1, 1, -1, 2),
        (1, 3, 2, 2),
    ]
    assert [(run.rank, run.place, run.first, run.num_heads, first) for run, first in geometry.unpacked] == [
        (0, 0, 0, 3, True),
        (0, 3, 2, 1, False),
        (0, 4, 2, 1, False),
        (1, 0, 3, 1, True),
        (1, 3, 2, 2, False),
    ]
    assert head_geometry(((0, 1, 2, 2, 2), (3, -1, -1, 2, 3))) is geometry, "made once"


def test_what_does_not_fit_the_map_is_refused_by_name() -> None:
    head_map = head_map_of(2, 4, 2)
    ctx = context("toHeads", head_map, ["query"], NoExchange())
    with pytest.raises(PlanError, match=r"op 7 \(toHeads\): views \(2, 5, 2\) and \(4, 2, 2\) do not fit the query"):
        to_heads(ctx, (torch.zeros(2, 5, 2),), (torch.zeros(4, 2, 2),))
    with pytest.raises(PlanError, match="do not fit the query heads of 2 ranks, 2 each of 4 in all"):
        to_heads(ctx, (torch.zeros(2, 4, 2),), (torch.zeros(3, 2, 2),))
    with pytest.raises(ValueError, match="zip"):
        to_heads(ctx, (torch.zeros(2, 4, 2),) * 2, (torch.zeros(4, 2, 2),) * 2)
    for lists in (((0, 1), (2,)), ((0,), (2,)), ((-1,), (-1,))):
        with pytest.raises(PlanError, match="must be equally long and hold every head"):
            head_geometry(lists)
