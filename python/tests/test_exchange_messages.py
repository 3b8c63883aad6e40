"""What the all-to-all handlers make to exchange heads: messages, copies and slices; and what they refuse."""

from __future__ import annotations

import json
import weakref
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fpdt.errors import PlanError
from fpdt.ops.exchange import head_geometry, to_heads, to_sequence
from fpdt.plan.data import HeadMap
from tests.head_maps import QKV, context, head_map_of, lists_of, num_heads
from tests.planned import ROOT

EXCHANGES = json.loads((ROOT / "test/fixtures/exchanges.json").read_text(encoding="utf-8"))


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


def test_runs_of_heads_alike_are_one_strided_copy() -> None:
    geometry = head_geometry(((0, 1, 2, 2, 2), (3, -1, -1, 2, 3)))
    assert [run.start[:4] for run in geometry.packed] == [
        (0, 0, 0, 3),
        (0, 3, 2, 2),
        (1, 0, 3, 1),
        (1, 1, -1, 2),
        (1, 3, 2, 2),
    ]
    assert [(run.start[:4], first) for run, first in geometry.unpacked] == [
        ((0, 0, 0, 3), True),
        ((1, 0, 3, 1), True),
        ((0, 3, 2, 1), False),
        ((1, 4, 3, 1), False),
        ((0, 4, 2, 1), False),
        ((1, 3, 2, 1), False),
    ]
    assert head_geometry(((0, 1, 2, 2, 2), (3, -1, -1, 2, 3))) is geometry, "made once"
    copied = head_geometry(((0,), (0,), (1,), (1,)))
    assert [(run[1:], first) for run, first in copied.unpacked] == [((2, 2, 1), True), ((2, 2, 1), False)]


@pytest.mark.parametrize("case", EXCHANGES, ids=lambda case: case["name"])
def test_copies_are_as_many_as_are_priced(case: dict[str, Any]) -> None:
    """Which the planner's tests read too."""
    lists = tuple(map(tuple, case["lists"]))
    geometry = head_geometry(lists)
    assert (len(geometry.packed), len(geometry.unpacked)) == (case["packed"], case["unpacked"])
    assert geometry.has_copies == case["summed"]


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
