"""All-to-all over the sequence group between token shares with all heads and all tokens with own heads.

All pairs of an op travel in one exchange (one per dtype, where they differ). What goes where is the plan's head map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fpdt.plan.data import HeadMap
    from fpdt.run.context import OpContext

Pair = tuple[Tensor, Tensor]
Heads = tuple[int, ...]


def to_heads(ctx: OpContext) -> None:
    """[rows / P, all heads, d] -> [rows, own heads, d]; rank r's tokens are the r-th of P row blocks."""
    if _copied_alone(ctx):
        return
    head_map = ctx.bound.extra.head_map
    for pairs in _by_dtype(ctx):
        send, receive = _messages([write for _, write in pairs], len(head_map.query))
        for rank, pieces in enumerate(send):
            for (read, _), piece in zip(pairs, pieces, strict=True):
                _take_heads(piece, read, _lists_for(head_map, read.shape[1])[rank])
        ctx.runtime.all_to_all(receive.buffer, send.buffer)
        for rank, pieces in enumerate(receive):
            for (_, write), piece in zip(pairs, pieces, strict=True):
                _rows_of(write, rank, len(head_map.query)).copy_(piece)


def to_sequence(ctx: OpContext) -> None:
    """The way back. A head that several ranks own (replicated k, v) is the sum of what they send: its gradient."""
    if _copied_alone(ctx):
        return
    head_map = ctx.bound.extra.head_map
    for pairs in _by_dtype(ctx):
        send, receive = _messages([read for read, _ in pairs], len(head_map.query))
        for rank, pieces in enumerate(send):
            for (read, _), piece in zip(pairs, pieces, strict=True):
                piece.copy_(_rows_of(read, rank, len(head_map.query)))
        ctx.runtime.all_to_all(receive.buffer, send.buffer)
        for position, (_, write) in enumerate(pairs):
            _put_heads(write, [pieces[position] for pieces in receive], _lists_for(head_map, write.shape[1]))


class Message:
    """A flat buffer [P, elements] and, per rank, its pieces shaped like the pairs' tensors."""

    def __init__(self, buffer: Tensor, shapes: Sequence[torch.Size]) -> None:
        self.buffer = buffer
        self._shapes = shapes

    def __iter__(self) -> Iterator[list[Tensor]]:
        for row in self.buffer.unbind(0):
            flat = torch.split(row, [shape.numel() for shape in self._shapes])
            yield [piece.view(shape) for piece, shape in zip(flat, self._shapes, strict=True)]


def _messages(heads_views: Sequence[Tensor], num_ranks: int) -> tuple[Message, Message]:
    """Send and receive messages; between any two ranks goes one token share of the own heads."""
    shapes = [torch.Size((view.shape[0] // num_ranks, *view.shape[1:])) for view in heads_views]
    first = heads_views[0]
    elements = sum(shape.numel() for shape in shapes)
    send = torch.empty(num_ranks, elements, dtype=first.dtype, device=first.device)
    return Message(send, shapes), Message(torch.empty_like(send), shapes)


def _lists_for(head_map: HeadMap, num_heads: int) -> Sequence[Heads]:
    """The lists of query or of key/value heads, whichever a tensor with `num_heads` heads in all has."""
    for lists in (head_map.query, head_map.key_value):
        if len({head for heads in lists for head in heads}) == num_heads:
            return lists
    raise ValueError(f"the plan's head map has no lists of {num_heads} heads: {head_map}")


def _copied_alone(ctx: OpContext) -> bool:
    """One rank owns everything already, in the same order."""
    if len(ctx.bound.extra.head_map.query) > 1:
        return False
    for read, write in zip(ctx.reads, ctx.writes, strict=True):
        write.copy_(read)
    return True


def _by_dtype(ctx: OpContext) -> list[list[Pair]]:
    groups: dict[torch.dtype, list[Pair]] = {}
    for read, write in zip(ctx.reads, ctx.writes, strict=True):
        groups.setdefault(read.dtype, []).append((read, write))
    return list(groups.values())


def _rows_of(view: Tensor, rank: int, num_ranks: int) -> Tensor:
    rows = view.shape[0] // num_ranks
    return view[rank * rows : (rank + 1) * rows]


def _take_heads(piece: Tensor, view: Tensor, heads: Heads) -> None:
    for first, position, count in _runs(heads):
        piece[:, position : position + count].copy_(view[:, first : first + count])


def _put_heads(view: Tensor, pieces: Sequence[Tensor], lists: Sequence[Heads]) -> None:
    replicated = sum(len(heads) for heads in lists) > view.shape[1]
    if replicated:
        view.zero_()
    for piece, heads in zip(pieces, lists, strict=True):
        for first, position, count in _runs(heads):
            target, source = view[:, first : first + count], piece[:, position : position + count]
            if replicated:
                target.add_(source)
            else:
                target.copy_(source)


@lru_cache
def _runs(heads: Heads) -> tuple[tuple[int, int, int], ...]:
    """Runs of consecutive heads: (first head, position in the list, count). Slices then do, and no index is made."""
    runs: list[tuple[int, int, int]] = []
    for position, head in enumerate(heads):
        if runs and head == runs[-1][0] + runs[-1][2]:
            first, start, count = runs[-1]
            runs[-1] = (first, start, count + 1)
        else:
            runs.append((head, position, 1))
    return tuple(runs)
