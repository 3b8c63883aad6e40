"""Checks of all ops at once, on arrays: kinds, streams, views, ranges, attributes and waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fpdt.errors import PlanError
from fpdt.plan.columns import require
from fpdt.plan.header import CUT_SHORT, Header
from fpdt.plan.op_kinds import EXTERNAL_KINDS, OP_KINDS, OpKind, Views
from fpdt.plan.sections import Array, Columns, Section

_MASKS = {"full": 1, "causal": 2, "window": 3}


@dataclass(frozen=True, slots=True)
class ArgBounds:
    """Arguments [low, high) of a parameter for which every access of the section names an instance that exists."""

    low: int
    high: int


def check_ops(header: Header, columns: Columns, sections: Mapping[str, Section]) -> None:
    """Raises PlanError naming the first op at fault."""
    check = _Check(header, columns, sections)
    check.kinds_and_streams()
    check.views()
    check.accesses()
    check.ranges_and_attributes()
    check.waits()
    check.links()
    check.sections()


def arg_bounds(section: Section) -> tuple[ArgBounds, ...]:
    """For each parameter of a section; an unused parameter may be anything."""
    columns = section.columns
    used = np.unique(columns.view[columns.views_at[section.first] : columns.views_at[section.first + section.num_ops]])
    params, index = columns.access_param[used], columns.access_index[used].astype(np.int64)
    instances = np.array([buffer.instances for buffer in section.buffers], dtype=np.int64)
    left = instances[columns.access_buffer[used]] - index if len(used) else index
    bounds = []
    for number in range(len(section.params)):
        mine = params == number
        if mine.any():
            bounds.append(ArgBounds(max(0, int((-index[mine]).max())), int(left[mine].min())))
        else:
            bounds.append(ArgBounds(0, 2**31))
    return tuple(bounds)


class _Check:
    def __init__(self, header: Header, columns: Columns, sections: Mapping[str, Section]) -> None:
        self._header, self._columns, self._sections = header, columns, sections
        self._kinds: list[OpKind] = [OP_KINDS[row.name] for row in header.op_kinds]
        self._starts = np.array([section.first for section in sections.values()], dtype=np.int64)
        self._num_views = np.diff(columns.views_at)

    def kinds_and_streams(self) -> None:
        columns, header = self._columns, self._header
        self._refuse(columns.kind >= len(self._kinds), lambda i: f"has kind {columns.kind[i]}, of {len(self._kinds)}")
        streams = header.streams
        self._refuse(columns.stream >= len(streams), lambda i: f"has stream {columns.stream[i]}, of {len(streams)}")
        expected = np.array([-1 if k.stream == "link" else streams.index(k.stream) for k in self._kinds], np.int64)
        wanted = expected[columns.kind]
        wrong = (wanted >= 0) & (wanted != columns.stream)
        self._refuse(wrong, lambda i: f"is on stream {streams[columns.stream[i]]}, not {streams[wanted[i]]}")

    def views(self) -> None:
        columns = self._columns
        reads, writes = columns.num_reads.astype(np.int64), columns.num_writes.astype(np.int64)
        accumulates = self._num_views - reads - writes
        for name, counts, place in (("reads", reads, 0), ("writes", writes, 1), ("accumulates", accumulates, 2)):
            wanted = np.array([_count(kind.groups[place]) for kind in self._kinds], np.int64)[columns.kind]
            wrong = (counts < 0) | ((wanted >= 0) & (wanted != counts))
            self._refuse(wrong, lambda i, n=name, c=counts, w=wanted: f"has {c[i]} {n}, expected {w[i]}")
        paired = np.array([kind.is_paired for kind in self._kinds])[columns.kind]
        groups = self._exchanged_groups()
        wrong = paired & (groups == 0) & (reads != writes)
        self._refuse(wrong, lambda i: f"pairs {reads[i]} reads with {writes[i]} writes")
        one, many = np.minimum(reads, writes), np.maximum(reads, writes)
        wrong = (groups > 0) & ((one != 1) | (many != groups))
        self._refuse(wrong, lambda i: f"has {reads[i]} reads and {writes[i]} writes for {groups[i]} groups of heads")
        views, count = columns.view, len(columns.access_buffer)
        bad = (views < 0) | (views >= count)
        require(not bad.any(), f"an op names access {_first(views, bad)}, of {count}")

    def _exchanged_groups(self) -> Array:
        """Of exchanges of all groups of heads how many there are; 0 of all other ops."""
        of_all = [a.heads.groups if a.heads and a.heads.group is None else 0 for a in self._header.attributes]
        which = self._columns.attribute
        known = np.where((which >= 0) & (which < len(of_all)), which, len(of_all))
        exchanges = np.array([kind.name in ("toHeads", "toSequence") for kind in self._kinds], bool)
        found: Array = np.array([*of_all, 0], np.int64)[known] * exchanges[self._columns.kind]
        return found

    def accesses(self) -> None:
        columns, buffers = self._columns, self._header.buffers
        bad = (columns.access_buffer < 0) | (columns.access_buffer >= len(buffers))
        require(not bad.any(), f"an access names buffer {_first(columns.access_buffer, bad)}, of {len(buffers)}")
        if not len(columns.access_buffer):
            return
        rows = np.array([buffer.rows for buffer in buffers], np.int64)[columns.access_buffer]
        start, end = columns.access_start, columns.access_end
        bad = (start < 0) | (start >= end) | (end > rows)
        if bad.any():
            i = int(np.argmax(bad))
            name = buffers[columns.access_buffer[i]].name
            raise PlanError(f"an access names rows [{start[i]}:{end[i]}) of {name}, which has {rows[i]}", CUT_SHORT)
        blocks = np.array([buffer.block_rows or 0 for buffer in buffers], np.int64)[columns.access_buffer]
        bad = (blocks > 0) & ((start % np.maximum(blocks, 1) != 0) | (end - start != blocks))
        if bad.any():
            i = int(np.argmax(bad))
            name = buffers[columns.access_buffer[i]].name
            rows_named = f"rows [{start[i]}:{end[i]}) of {name}"
            raise PlanError(f"an access names {rows_named}, which are no block of {blocks[i]}", CUT_SHORT)
        instances = np.array([buffer.instances for buffer in buffers], np.int64)[columns.access_buffer]
        index, fixed = columns.access_index, columns.access_param < 0
        bad = fixed & ((index < 0) | (index >= instances))
        if bad.any():
            i = int(np.argmax(bad))
            name = buffers[columns.access_buffer[i]].name
            raise PlanError(f"an access names instance {index[i]} of {name}, which has {instances[i]}", CUT_SHORT)
        require(bool((columns.access_param >= -1).all()), "an access names a parameter below -1")

    def ranges_and_attributes(self) -> None:
        columns, attributes = self._columns, self._header.attributes
        start, end = columns.tokens[:, 0], columns.tokens[:, 1]
        self._refuse((start < 0) | (end < start), lambda i: f"has tokens [{start[i]}:{end[i]})")
        kv_start, kv_end = columns.kv[:, 0], columns.kv[:, 1]
        none = (kv_start == -1) & (kv_end == -1)
        self._refuse(~none & ((kv_start < 0) | (kv_end <= kv_start)), lambda i: f"has kv [{kv_start[i]}:{kv_end[i]})")
        which = columns.attribute
        self._refuse(
            (which < -1) | (which >= len(attributes)), lambda i: f"has attribute {which[i]}, of {len(attributes)}"
        )
        # Attribute -1 is the last row here: no mask.
        masks = np.array([_MASKS[a.mask.kind] if a.mask else 0 for a in attributes] + [0])[which]
        attends = np.array([kind.name in ("attn", "attnBwd") for kind in self._kinds], bool)[columns.kind]
        self._refuse(attends & none, lambda i: "has no kv range")
        # What is left out with attention to keys that documents hide from their queries.
        serves = np.array([kind.name in ("merge", "copy") for kind in self._kinds], bool)[columns.kind]
        keys = lambda i: f"has kv [{kv_start[i]}:{kv_end[i]}) for tokens [{start[i]}:{end[i]})"  # noqa: E731
        self._refuse(~none & ~attends & (~serves | (kv_end > start)), keys)
        self._refuse(attends & (masks == 0), lambda i: "has no mask")
        # Keys after a query are seen by none; without a mask they must all come before the first.
        late = ((masks == 1) & (kv_end > start)) | ((masks == 2) & (kv_end != end)) | ((masks == 3) & (kv_end > end))
        self._refuse(attends & late, keys)

    def waits(self) -> None:
        columns = self._columns
        rows = np.repeat(np.arange(len(columns.kind)), np.diff(columns.waits_at))
        own = rows - self._starts[np.searchsorted(self._starts, rows, side="right") - 1] if len(rows) else rows
        bad = (columns.wait < 0) | (columns.wait >= own)
        if bad.any():
            i = int(np.argmax(bad))
            op = self._text(int(rows[i]))
            raise PlanError(f"{op} waits for op {columns.wait[i]}, which is not an earlier op of it", CUT_SHORT)

    def links(self) -> None:
        """A copy is on the stream of the link between the pools of each of its pairs."""
        columns, header = self._columns, self._header
        pools = {pool.name: number for number, pool in enumerate(header.pools)}
        streams = np.full((len(pools), len(pools)), -1, np.int64)
        for link in header.links:
            streams[pools[link.from_], pools[link.to]] = header.streams.index(link.stream)
        pool_of = np.array([pools[buffer.pool] for buffer in header.buffers], np.int64)
        is_link = np.array([kind.stream == "link" for kind in self._kinds], bool)
        copies = np.flatnonzero(is_link[columns.kind])
        pairs = columns.num_reads[copies].astype(np.int64)
        rows = np.repeat(copies, pairs)
        first = np.repeat(columns.views_at[copies].astype(np.int64), pairs)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
        read = columns.access_buffer[columns.view[first + place]]
        write = columns.access_buffer[columns.view[first + place + np.repeat(pairs, pairs)]]
        if not len(rows):
            return
        bad = streams[pool_of[read], pool_of[write]] != columns.stream[rows]
        if bad.any():
            i = int(np.argmax(bad))
            names = f"{header.buffers[read[i]].pool} to {header.buffers[write[i]].pool}"
            stream = header.streams[columns.stream[rows[i]]]
            raise PlanError(f"{self._text(int(rows[i]))} copies from {names} on stream {stream}", CUT_SHORT)

    def sections(self) -> None:
        """Accesses use parameters of their section; a section is either all ZeRO's work or none."""
        columns = self._columns
        external = np.array([kind.name in EXTERNAL_KINDS for kind in self._kinds], bool)[columns.kind]
        for section in self._sections.values():
            used = columns.view[columns.views_at[section.first] : columns.views_at[section.first + section.num_ops]]
            highest = int(columns.access_param[used].max()) if len(used) else -1
            count = len(section.params)
            require(highest < count, f"{section.name} uses parameter {highest} of {count}")
            mine = external[section.rows]
            require(bool(mine.all() or not mine.any()), f"{section.name} mixes work of ZeRO's with the plan's")

    def _refuse(self, wrong: Array, message: object) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            raise PlanError(f"{self._text(row)} {message(row)}", CUT_SHORT)  # type: ignore[operator]

    def _text(self, row: int) -> str:
        names = list(self._sections)
        # Empty sections share their first row with the next one: take the last that starts here.
        place = int(np.searchsorted(self._starts, row, side="right")) - 1
        kind = int(self._columns.kind[row])
        name = self._kinds[kind].name if kind < len(self._kinds) else f"of kind {kind}"
        return f"op {row - int(self._starts[place])} {name} of {names[place]}"


def _count(views: Views) -> int:
    return -1 if views == "many" else len(views)


def _first(values: Array, bad: Array) -> int:
    return int(values[int(np.argmax(bad))]) if bad.any() else -1
