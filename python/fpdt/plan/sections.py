"""The nouns of an execution plan that come from its columns: sections, ops and accesses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from fpdt.plan.nouns import Attribute, Buffer
from fpdt.plan.op_kinds import OpKind

Array = NDArray[Any]
HeadLists = Literal["query", "keyValue"]


class Range(NamedTuple):
    """Half-open [start, end)."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Access:
    """Rows [start, end) of instance `index` of a buffer, plus the argument of parameter `param` unless that is -1."""

    buffer: int
    start: int
    end: int
    param: int
    index: int

    def instance(self, args: Sequence[int]) -> int:
        return self.index if self.param < 0 else self.index + args[self.param]


@dataclass(frozen=True, slots=True)
class Columns:
    """The ops of all sections, a row each, and the accesses of the whole plan; see decode for what was checked.

    `tokens` and `kv` are [ops, 2]. The views of op i are `view[views_at[i] : views_at[i + 1]]`, numbers of accesses:
    first its reads, then its writes, then what it accumulates into.
    """

    kind: Array
    stream: Array
    tokens: Array
    kv: Array
    attribute: Array
    scratch: Array
    views_at: Array
    num_reads: Array
    num_writes: Array
    view: Array
    waits_at: Array
    wait: Array
    access_buffer: Array
    access_start: Array
    access_end: Array
    access_param: Array
    access_index: Array

    def access(self, number: int) -> Access:
        return Access(
            int(self.access_buffer[number]),
            int(self.access_start[number]),
            int(self.access_end[number]),
            int(self.access_param[number]),
            int(self.access_index[number]),
        )


class Op:
    """One row of a section; `id` is its position there. `tokens` and `kv` are global token ranges.

    What an op needs while it runs is in its slots; its views, waits and scratch bytes are read from the columns.
    """

    __slots__ = ("attribute", "id", "kind", "kv", "pair_heads", "section", "stream", "tokens")

    def __init__(
        self,
        section: Section,
        op_id: int,
        kind: str,
        stream: str,
        tokens: Range,
        kv: Range | None,
        attribute: Attribute,
        pair_heads: tuple[HeadLists, ...] = (),
    ) -> None:
        self.section = section
        self.id = op_id
        self.kind = kind
        self.stream = stream
        self.tokens = tokens
        self.kv = kv
        self.attribute = attribute
        self.pair_heads = pair_heads
        """Of an exchange: which lists of the head map each of its pairs follows."""

    @property
    def reads(self) -> tuple[Access, ...]:
        return self.section.groups(self.id)[0]

    @property
    def writes(self) -> tuple[Access, ...]:
        return self.section.groups(self.id)[1]

    @property
    def accumulates(self) -> tuple[Access, ...]:
        return self.section.groups(self.id)[2]

    @property
    def accesses(self) -> tuple[Access, ...]:
        reads, writes, accumulates = self.section.groups(self.id)
        return reads + writes + accumulates

    @property
    def waits(self) -> tuple[int, ...]:
        return self.section.waits(self.id)

    @property
    def scratch_bytes(self) -> int:
        return int(self.section.columns.scratch[self.section.first + self.id])


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """Straight-line ops: rows [first, first + num_ops) of the columns. `params` are names."""

    name: str
    params: tuple[str, ...]
    first: int
    num_ops: int
    columns: Columns = field(repr=False)
    kinds: tuple[OpKind, ...] = field(repr=False)
    streams: tuple[str, ...] = field(repr=False)
    attributes: tuple[Attribute, ...] = field(repr=False)
    buffers: tuple[Buffer, ...] = field(repr=False)

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.num_ops)

    @property
    def ops(self) -> tuple[Op, ...]:
        """All ops, made anew."""
        return tuple(self.make_ops())

    def make_ops(self) -> Iterator[Op]:
        """Ops in order; equal ranges are one object."""
        columns, ranges = self.columns, dict[tuple[int, int], Range]()
        names = [kind.name for kind in self.kinds]
        exchanges = [name in ("toHeads", "toSequence") for name in names]
        none = Attribute()
        rows = zip(
            columns.kind[self.rows].tolist(),
            columns.stream[self.rows].tolist(),
            columns.tokens[self.rows].tolist(),
            columns.kv[self.rows].tolist(),
            columns.attribute[self.rows].tolist(),
            strict=True,
        )
        for op_id, (kind, stream, tokens, kv, attribute) in enumerate(rows):
            yield Op(
                self,
                op_id,
                names[kind],
                self.streams[stream],
                _shared(ranges, tokens),
                None if kv[0] < 0 else _shared(ranges, kv),
                none if attribute < 0 else self.attributes[attribute],
                self._pair_heads(op_id) if exchanges[kind] else (),
            )

    def _pair_heads(self, op_id: int) -> tuple[HeadLists, ...]:
        return tuple(head_lists(name) for name in self.names(self.groups(op_id)[0]))

    def view_numbers(self, op_id: int) -> Array:
        at = self.first + op_id
        found: Array = self.columns.view[self.columns.views_at[at] : self.columns.views_at[at + 1]]
        return found

    def groups(self, op_id: int) -> tuple[tuple[Access, ...], tuple[Access, ...], tuple[Access, ...]]:
        """What an op reads, writes and accumulates into."""
        at = self.first + op_id
        accesses = tuple(self.columns.access(number) for number in self.view_numbers(op_id))
        reads = int(self.columns.num_reads[at])
        writes = reads + int(self.columns.num_writes[at])
        return accesses[:reads], accesses[reads:writes], accesses[writes:]

    def waits(self, op_id: int) -> tuple[int, ...]:
        columns, at = self.columns, self.first + op_id
        return tuple(columns.wait[columns.waits_at[at] : columns.waits_at[at + 1]].tolist())

    def names(self, accesses: Sequence[Access]) -> tuple[str, ...]:
        """The names of the accessed buffers."""
        return tuple(self.buffers[access.buffer].name for access in accesses)

    def access_text(self, access: Access) -> str:
        """As the planner prints it: `x#x+1[0:32)`; the word behind # is a parameter."""
        if access.param < 0:
            instance = f"#{access.index}" if access.index else ""
        else:
            instance = f"#{self.params[access.param]}" + (f"{access.index:+d}" if access.index else "")
        return f"{self.buffers[access.buffer].name}{instance}[{access.start}:{access.end})"


@lru_cache
def head_lists(buffer_name: str) -> HeadLists:
    """Which heads a buffer holds, by its name: those of k, v and their gradients are key/value heads."""
    base = re.split(r"[@.]", buffer_name)[0].replace("Local", "").removeprefix("d")
    return "keyValue" if base.startswith(("k", "v")) else "query"


def _shared(ranges: dict[tuple[int, int], Range], pair: list[int]) -> Range:
    key = (pair[0], pair[1])
    found = ranges.get(key)
    if found is None:
        found = ranges[key] = Range(*key)
    return found
