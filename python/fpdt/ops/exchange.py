"""All-to-all over the sequence group between token shares with all heads and all tokens with own heads.

Which heads a rank owns is the plan's head map: a list of head numbers per rank, -1 for a padded head. Of a view
[rows, own heads, d] the r-th of P row blocks is what is exchanged with rank r, so that its memory is the message: a
pair takes one all-to-all and strided copies, one where no head is padded or copied, into the message (toHeads) or out
of it (toSequence).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from fpdt.errors import PlanError

if TYPE_CHECKING:
    from fpdt.run.context import OpContext

RankHeads = tuple[tuple[int, ...], ...]

_LISTS = {"query": attrgetter("query"), "keyValue": attrgetter("key_value")}


def to_heads(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
    """[rows / P, all heads, d] -> [rows, own heads, d]; rank r's tokens are the r-th of P row blocks.

    A head in several places of the map is copied to each; padded heads are zeros. Of a group of heads only those move.
    Raises PlanError for views that do not fit the map.
    """
    for pair, read, write in _pairs(ctx, reads, writes):
        _send_heads(ctx, _geometry(ctx, *pair, local=read, sharded=write), read, write)


def to_sequence(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
    """The way back. A head in several places of the map (copied k, v) is the sum of its pieces: its gradient.

    Summed in fp32 (fp64 for fp64), in the order of ranks and within a rank of its list; padded heads are dropped. Where
    the op is one group's alone, the heads of the others become zeros.
    """
    heads = ctx.op.attribute.heads
    is_alone = heads is not None and heads.group is not None
    for pair, read, write in _pairs(ctx, reads, writes):
        if is_alone:
            write.zero_()
        _receive_heads(ctx, _geometry(ctx, *pair, local=write, sharded=read), read, write)


Pair = tuple[str, int]
"""Which lists of the head map a pair follows, and which group of the heads."""


def _pairs(
    ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]
) -> Iterator[tuple[Pair, Tensor, Tensor]]:
    """Of all groups in one op: the view with all heads with each of the others."""
    heads = ctx.op.attribute.heads
    if heads is None or heads.group is not None:
        group = 0 if heads is None else heads.group or 0
        pairs = [(lists, group) for lists in ctx.op.pair_heads]
        return zip(pairs, reads, writes, strict=True)
    lists = ctx.op.pair_heads[0]
    pairs = [(lists, group) for group, _ in enumerate(reads if len(reads) > len(writes) else writes)]
    sources, targets = (views * heads.groups if len(views) == 1 else views for views in (reads, writes))
    return zip(pairs, sources, targets, strict=True)


class Run(NamedTuple):
    """Heads [first, first + num_heads) of the local view at places [place, place + num_heads) of a rank's list.

    `first` -1: padding. `is_repeated`: the one head `first` at all of these places.
    """

    rank: int
    place: int
    first: int
    num_heads: int
    is_repeated: bool = False

    @property
    def heads(self) -> tuple[int, ...]:
        """The head at each place."""
        if self.is_repeated:
            return (self.first,) * self.num_heads
        return tuple(range(self.first, self.first + self.num_heads))


class Runs(NamedTuple):
    """Runs that differ by the same numbers of ranks and heads from one to the next: one strided copy moves them all."""

    start: Run
    num_runs: int
    rank_step: int = 1
    head_step: int = 0

    def of_blocks(self, blocks: Tensor) -> Tensor:
        """[runs, rows / P, heads, d] of [P, rows / P, own heads, d]."""
        rank, place = self.start.rank, self.start.place
        ranks = slice(rank, rank + (self.num_runs - 1) * self.rank_step + 1, self.rank_step)
        return blocks[ranks, :, place : place + self.start.num_heads]

    def of_local(self, local: Tensor) -> Tensor:
        """[runs, rows / P, heads, d] of [rows / P, heads, d]; one head where it is repeated."""
        row, head, element = local.stride()
        num_heads = 1 if self.start.is_repeated else self.start.num_heads
        return local.as_strided(
            (self.num_runs, local.shape[0], num_heads, local.shape[2]),
            (self.head_step * head, row, head, element),
            int(local.storage_offset()) + self.start.first * head,
        )


@dataclass(frozen=True, slots=True)
class Geometry:
    """What one side's lists of a head map mean for packing and unpacking, computed once."""

    num_ranks: int
    num_own: int
    """Heads of a head-sharded view, padding included."""
    num_heads: int
    """Heads of a local view, those of other groups included."""
    has_copies: bool
    packed: tuple[Runs, ...]
    unpacked: tuple[tuple[Runs, bool], ...]
    """Runs without padding or repetition, and whether they are the first pieces of their heads."""

    def blocks(self, sharded: Tensor) -> Tensor:
        """[rows, own heads, d] -> [P, rows / P, own heads, d]."""
        return sharded.view(self.num_ranks, -1, *sharded.shape[1:])


@lru_cache
def group_geometry(lists: RankHeads, groups: int, group: int) -> Geometry:
    """Of one of the groups of equal size that each list is cut into. Raises PlanError where they cannot be."""
    whole = head_geometry(lists)
    size, rest = divmod(whole.num_own, groups)
    if rest or not 0 <= group < groups:
        raise PlanError(f"{whole.num_own} heads of a rank have no group {group} of {groups} of equal size")
    if groups == 1:
        return whole
    start = group * size
    return _geometry_of(tuple(own[start : start + size] for own in lists), whole.num_heads)


@lru_cache
def head_geometry(lists: RankHeads) -> Geometry:
    """Raises PlanError for lists of different lengths, or that leave out a head."""
    places = [head for heads in lists for head in heads]
    heads = {head for head in places if head >= 0}
    num_heads = len(heads)
    if len({len(heads) for heads in lists}) != 1 or heads != set(range(num_heads)) or not heads:
        raise PlanError(f"the lists of a head map must be equally long and hold every head, got {lists}")
    return _geometry_of(lists, num_heads)


def _geometry_of(lists: RankHeads, num_heads: int) -> Geometry:
    runs = [run for rank, own in enumerate(lists) for run in _runs(rank, own)]
    pieces = _pieces(runs)
    unpacked = [(alike, number == 0) for number in sorted(pieces) for alike in _alike(pieces[number])]
    first_and_later = [alike for alike, _ in unpacked]
    return Geometry(
        num_ranks=len(lists),
        num_own=len(lists[0]),
        num_heads=num_heads,
        has_copies=len(pieces) > 1,
        packed=min(_alike(runs), (*first_and_later, *_alike([run for run in runs if run.first < 0])), key=len),
        unpacked=tuple(unpacked),
    )


def _runs(rank: int, heads: tuple[int, ...]) -> list[Run]:
    """Consecutive and repeated heads as slices: no index is made or read on the device."""
    runs: list[Run] = []
    for place, head in enumerate(heads):
        last = runs[-1] if runs else Run(rank, 0, -2, 0)
        if head == last.first and (last.is_repeated or last.num_heads == 1):
            runs[-1] = last._replace(num_heads=last.num_heads + 1, is_repeated=True)
        elif head >= 0 and last.first >= 0 and not last.is_repeated and head == last.first + last.num_heads:
            runs[-1] = last._replace(num_heads=last.num_heads + 1)
        else:
            runs.append(Run(rank, place, head, 1))
    return runs


def _pieces(runs: Sequence[Run]) -> dict[int, list[Run]]:
    """Without padding, cut so that every run of the n-th list holds the n-th piece of each of its heads."""
    seen: Counter[int] = Counter()
    pieces: dict[int, list[Run]] = {}
    for run in runs:
        last = -1
        for i, head in enumerate(run.heads if run.first >= 0 else ()):
            number = seen[head]
            seen[head] += 1
            mine = pieces.setdefault(number, [])
            if number == last and not run.is_repeated:
                mine[-1] = mine[-1]._replace(num_heads=mine[-1].num_heads + 1)
            else:
                mine.append(Run(run.rank, run.place + i, head, 1))
            last = number
    return pieces


def _alike(runs: Sequence[Run]) -> tuple[Runs, ...]:
    """Runs at the same places and of the same lengths, taken together while ranks and heads go up in equal steps."""
    found: dict[tuple[int, int, bool, bool], list[Runs]] = {}
    for run in runs:
        same = found.setdefault((run.place, run.num_heads, run.is_repeated, run.first < 0), [])
        longer = _with(same[-1], run) if same else None
        if longer is None:
            same.append(Runs(run, 1))
        else:
            same[-1] = longer
    return tuple(alike for same in found.values() for alike in same)


def _with(runs: Runs, run: Run) -> Runs | None:
    """One run more, where it is the next."""
    start, num_runs, rank_step, head_step = runs
    if num_runs == 1:
        rank_step, head_step = run.rank - start.rank, run.first - start.first
    is_next = (run.rank, run.first) == (start.rank + num_runs * rank_step, start.first + num_runs * head_step)
    return Runs(start, num_runs + 1, rank_step, head_step) if is_next and head_step >= 0 else None


def _geometry(ctx: OpContext, pair_heads: str, group: int, local: Tensor, sharded: Tensor) -> Geometry:
    heads = ctx.op.attribute.heads
    geometry = group_geometry(_LISTS[pair_heads](ctx.engine.head_map), 1 if heads is None else heads.groups, group)
    expected = (local.shape[0] * geometry.num_ranks, geometry.num_own, geometry.num_heads, *local.shape[2:])
    found = (sharded.shape[0], sharded.shape[1], local.shape[1], *sharded.shape[2:])
    if found != expected:
        raise PlanError(
            f"op {ctx.op.id} ({ctx.op.kind}): views {tuple(local.shape)} and {tuple(sharded.shape)} do not fit the "
            f"{pair_heads} heads of {geometry.num_ranks} ranks, {geometry.num_own} each of {geometry.num_heads} in all"
        )
    return geometry


def _send_heads(ctx: OpContext, geometry: Geometry, local: Tensor, sharded: Tensor) -> None:
    """One pair at a time, in a function of its own: one message is alive, as large as the head-sharded view."""
    message = sharded if geometry.num_ranks == 1 else torch.empty_like(sharded)
    _pack(geometry, local, geometry.blocks(message))
    if message is not sharded:
        ctx.runtime.all_to_all(sharded, message)


def _receive_heads(ctx: OpContext, geometry: Geometry, sharded: Tensor, local: Tensor) -> None:
    message = sharded if geometry.num_ranks == 1 else torch.empty_like(sharded)
    if message is not sharded:
        ctx.runtime.all_to_all(message, sharded)
    _unpack(geometry, geometry.blocks(message), local)


def _pack(geometry: Geometry, local: Tensor, blocks: Tensor) -> None:
    for runs in geometry.packed:
        target = runs.of_blocks(blocks)
        if runs.start.first < 0:
            target.zero_()
        else:
            target.copy_(runs.of_local(local))


def _unpack(geometry: Geometry, blocks: Tensor, local: Tensor) -> None:
    is_narrow = geometry.has_copies and local.dtype.itemsize < torch.float32.itemsize
    total = torch.empty_like(local, dtype=torch.float32) if is_narrow else local
    for runs, is_first in geometry.unpacked:
        target, piece = runs.of_local(total), runs.of_blocks(blocks)
        if is_first:
            target.copy_(piece)
        else:
            target.add_(piece)
    if is_narrow:
        local.copy_(total)
