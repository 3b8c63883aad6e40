"""Links the sections of a plan to tensors and handlers: once, into flat lists that a run loop goes through."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fpdt.attention import Documents
from fpdt.errors import PlanError
from fpdt.ops.skip import skip, skip_transfer
from fpdt.plan import OP_KINDS, Plan, Section
from fpdt.plan.op_kinds import SAME_VERSION, OpKind
from fpdt.run.arena import Views
from fpdt.run.context import Frame, Handler, Handlers, OpContext
from fpdt.run.files import FileSlice, FileSlices
from fpdt.run.left_out import HideableOps, hideable_ops
from fpdt.run.runtime import Gate, Runtime

View = Tensor | FileSlice
ViewTuple = tuple[Any, ...]
"""Arguments of a handler: tensors, or one tuple of them for each group of `many`."""


@dataclass(frozen=True, slots=True)
class Dependent:
    """An op with a view that follows an argument: which of its call's views are its, and in what shape."""

    op: int
    layout: int
    numbers: tuple[int, ...]
    num_reads: int


class LinkedSection:
    """The ops of a section, ready to run: `handlers[i](contexts[i], *views[i])` is op i.

    `kinds` are places in the worker's op table, `streams` in the plan's streams; `transfers` are the ops that move data
    to or from a file. `bind` re-points the views that depend on arguments, `leave_out` the handlers that documents
    leave nothing to do.
    """

    __slots__ = (
        "_args",
        "_dependents",
        "_fixed",
        "_handlers",
        "_hideable",
        "_numbers",
        "_read_bytes",
        "_resolve",
        "afters",
        "contexts",
        "external",
        "first_ops",
        "frame",
        "gates",
        "handlers",
        "kind_counts",
        "kinds",
        "left_out",
        "num_ops",
        "section",
        "streams",
        "transfers",
        "views",
    )

    def __init__(self, section: Section, frame: Frame) -> None:
        self.section = section
        self.frame = frame
        self.num_ops = section.num_ops
        self.external: tuple[str, ...] = ()
        self.handlers: list[Handler] = []
        self.contexts: list[OpContext] = []
        self.views: list[ViewTuple] = []
        self.kinds: list[int] = []
        self.streams: list[int] = []
        self.gates: list[Gate] = []
        self.afters: dict[int, tuple[int, ...]] = {}
        self.transfers: frozenset[int] = frozenset()
        self.kind_counts: list[tuple[int, int]] = []
        self.first_ops: list[int] = []
        self.left_out: frozenset[int] = frozenset()
        self._handlers: list[Handler] = []
        self._hideable: HideableOps | None = None
        self._args: tuple[int, ...] | None = None
        self._dependents: list[Dependent] = []
        self._numbers: list[tuple[int, int, int]] = []
        self._fixed: dict[int, View] = {}
        self._resolve: Any = None
        self._read_bytes: list[int] | None = None

    @property
    def name(self) -> str:
        return self.section.name

    def read_bytes(self, op: int) -> int:
        """Bytes of what an op reads; for records."""
        if self._read_bytes is None:
            self._read_bytes = _read_bytes(self.section)
        return self._read_bytes[op]

    def leave_out(self, documents: Documents) -> None:
        """Makes the ops do nothing that these documents leave nothing to do, until the next time.

        They keep their places: what they wait for, and who waits for them, is as it was.
        """
        if self._hideable is None:
            return
        hidden = self._hideable.hidden(documents)
        self.left_out = frozenset(hidden)
        self.handlers = self._handlers.copy()
        for op in hidden:
            self.handlers[op] = skip_transfer if op in self.transfers else skip
        self.kind_counts = _counts([kind for op, kind in enumerate(self.kinds) if op not in self.left_out])

    def bind(self, args: tuple[int, ...]) -> None:
        """Points the views that follow arguments at the instances that `args` name."""
        if args == self._args:
            return
        self._args = args
        if not self._dependents:
            return
        resolve, found = self._resolve, self._fixed
        for number, param, index in self._numbers:
            found[number] = resolve(number, args[param] + index)
        views = self.views
        for item in self._dependents:
            views[item.op] = _LAYOUTS[item.layout](tuple([found[n] for n in item.numbers]), item.num_reads)


def link_sections(plan: Plan, runtime: Runtime, views: Views, handlers: Handlers) -> dict[str, LinkedSection]:
    """Every section of the plan. Raises PlanError for an op kind without a handler."""
    _check_handlers(plan, handlers)
    linker = _Linker(plan, runtime, views, handlers)
    # Millions of small objects are made here, none of which is garbage: collecting meanwhile would double the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return {name: linker.link(section) for name, section in plan.sections.items()}
    finally:
        if was_enabled:
            gc.enable()


class _Linker:
    def __init__(self, plan: Plan, runtime: Runtime, views: Views, handlers: Handlers) -> None:
        self._plan, self._runtime, self._handlers = plan, runtime, handlers
        self._views = views
        self._files = FileSlices(plan, runtime)
        self._kinds = tuple(OP_KINDS[row.name] for row in plan.header.op_kinds)
        places = {name: place for place, name in enumerate(plan.kind_names)}
        self._kind_places = np.array([places[kind.name] for kind in self._kinds], np.int64)
        self._layouts = [_layout_of(kind) for kind in self._kinds]
        self._shared: dict[tuple[int, int, bytes], ViewTuple] = {}

    def link(self, section: Section) -> LinkedSection:
        linked = LinkedSection(section, Frame(self._runtime))
        kinds = section.columns.kind[section.rows]
        linked.kinds = self._kind_places[kinds].tolist() if len(kinds) else []
        linked.streams = section.columns.stream[section.rows].tolist()
        linked.kind_counts = _counts(linked.kinds)
        if len(kinds) and self._kinds[int(kinds[0])].external:
            linked.external = tuple(self._kinds[int(kind)].name for kind in kinds)
            return linked
        linked.first_ops = _first_ops(section, len(self._plan.streams))
        linked.handlers = [self._handlers[self._kinds[kind].name] for kind in kinds.tolist()]
        if self._plan.packing:
            linked._handlers, linked._hideable = linked.handlers, hideable_ops(section)
        linked.contexts = [OpContext(op, linked.frame) for op in section.make_ops()]
        self._link_transfers(section, linked)
        self._link_views(section, linked)
        return linked

    def _link_views(self, section: Section, linked: LinkedSection) -> None:
        columns, plan = section.columns, self._plan
        numbers = plan.extents(section)
        params, index = columns.access_param[numbers].tolist(), columns.access_index[numbers].tolist()
        dependent = {number for number, param in zip(numbers.tolist(), params, strict=True) if param >= 0}
        found: dict[int, View] = {}
        for number, param, fixed in zip(numbers.tolist(), params, index, strict=True):
            if param < 0:
                found[number] = self._resolve(number, fixed)
            else:
                linked._numbers.append((number, param, fixed))
        linked._resolve, linked._fixed = self._resolve, found
        self._link_ops(section, linked, found, dependent)

    def _link_ops(self, section: Section, linked: LinkedSection, found: dict[int, View], dependent: set[int]) -> None:
        columns, rows = section.columns, section.rows
        view = columns.view
        at = columns.views_at[section.first : section.first + section.num_ops + 1].tolist()
        reads, kinds = columns.num_reads[rows].tolist(), columns.kind[rows].tolist()
        layouts, shared, views = self._layouts, self._shared, linked.views
        for op in range(section.num_ops):
            mine = view[at[op] : at[op + 1]]
            layout, num_reads = layouts[kinds[op]], reads[op]
            key = (layout, num_reads, mine.tobytes())
            made = shared.get(key)
            if made is None:
                numbers = tuple(mine.tolist())
                if dependent and not dependent.isdisjoint(numbers):
                    linked._dependents.append(Dependent(op, layout, numbers, num_reads))
                    made = ()
                else:
                    made = shared[key] = _LAYOUTS[layout](tuple([found[n] for n in numbers]), num_reads)
            views.append(made)

    def _resolve(self, number: int, instance: int) -> View:
        columns = self._plan.columns
        buffer = int(columns.access_buffer[number])
        start, end = int(columns.access_start[number]), int(columns.access_end[number])
        if self._files.is_file(buffer):
            return self._files.slice(buffer, instance, start, end)
        return self._views.rows(buffer, instance, start, end)

    def _link_transfers(self, section: Section, linked: LinkedSection) -> None:
        """Ops that wait for transfers with a file wait on the host; a transfer's own thread waits for it."""
        linked.gates = [None] * section.num_ops
        streams = section.columns.stream[section.rows]
        transfers = np.isin(streams, np.array(sorted(self._files.streams), dtype=np.int64))
        if not transfers.any():
            return
        linked.transfers = frozenset(np.flatnonzero(transfers).tolist())
        columns = section.columns
        waits_at = columns.waits_at[section.first : section.first + section.num_ops + 1].astype(np.int64)
        waits = columns.wait[waits_at[0] : waits_at[-1]]
        owners = np.repeat(np.arange(section.num_ops), np.diff(waits_at))
        for owner in np.unique(owners[transfers[waits]]).tolist():
            mine = waits[waits_at[owner] - waits_at[0] : waits_at[owner + 1] - waits_at[0]]
            awaited = tuple(mine[transfers[mine]].tolist())
            if transfers[owner]:
                linked.afters[owner] = awaited
            else:
                linked.gates[owner] = awaited


def _alone(views: ViewTuple, num_reads: int) -> ViewTuple:
    return views


def _one_group(views: ViewTuple, num_reads: int) -> ViewTuple:
    return (views,)


def _two_groups(views: ViewTuple, num_reads: int) -> ViewTuple:
    return views[:num_reads], views[num_reads:]


_LAYOUTS = (_alone, _one_group, _two_groups)


def _layout_of(kind: OpKind) -> int:
    """How an op's views become arguments: one by one, or a tuple for each group of `many`."""
    groups = [group for group in kind.groups if group == "many"]
    named = [group for group in kind.groups if group != "many" and group]
    if groups and (named or len(groups) > 2 or (kind.accumulates == "many" and len(groups) > 1)):
        raise PlanError(f"op kind {kind.name} mixes groups of views in a way that is not linked", SAME_VERSION)
    return len(groups)


def _read_bytes(section: Section) -> list[int]:
    columns = section.columns
    row_bytes = np.array([buffer.row_bytes for buffer in section.buffers], np.int64)
    sizes = (columns.access_end - columns.access_start) * row_bytes[columns.access_buffer]
    first = columns.views_at[section.rows].astype(np.int64)
    total = np.concatenate(([0], np.cumsum(sizes[columns.view])))
    found: list[int] = (total[first + columns.num_reads[section.rows]] - total[first]).tolist()
    return found


def _counts(kinds: list[int]) -> list[tuple[int, int]]:
    found, counts = np.unique(np.array(kinds, np.int64), return_counts=True)
    return list(zip(found.tolist(), counts.tolist(), strict=True))


def _first_ops(section: Section, num_streams: int) -> list[int]:
    """For each stream the first op on it, -1 where there is none."""
    streams = section.columns.stream[section.rows]
    found, first = np.unique(streams, return_index=True)
    ops = [-1] * num_streams
    for stream, op in zip(found.tolist(), first.tolist(), strict=True):
        ops[stream] = op
    return ops


def _check_handlers(plan: Plan, handlers: Handlers) -> None:
    kinds = [OP_KINDS[row.name] for row in plan.header.op_kinds]
    used = {kinds[number] for number in np.unique(plan.columns.kind).tolist()}
    missing = sorted(kind.name for kind in used if not kind.external and kind.name not in handlers)
    if missing:
        raise PlanError(f"no handler for the op kinds {', '.join(missing)}", SAME_VERSION)
