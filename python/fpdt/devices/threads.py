"""The CPU with the native copy engine: copies run on native threads, beside compute, and Python launches none."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from fpdt.copies import CopyEngine, CopyEngineError, LoweredSection
from fpdt.devices.copy_calls import CopyCalls
from fpdt.devices.file_pool import FilePool, Ticket
from fpdt.devices.host import HostRuntime
from fpdt.errors import ScheduleError
from fpdt.measure.timing import Recorder
from fpdt.run.arena import Arena
from fpdt.run.context import Bound, OpContext
from fpdt.run.runtime import COMM, COMPUTE, LinkedCall, await_gate

if TYPE_CHECKING:
    from fpdt.run.files import FileSlice
    from fpdt.run.link import LinkedSection

SLEEP_MILLIONTHS = 100_000
"""How often a thread sleeps before it waits, copies or signals, and Python before it runs an op."""
MOST_SLEEP_MICROSECONDS = 300


class ThreadsRuntime(HostRuntime):
    """Compute and exchanges run on Python's thread, in the order of the plan; copies between arenas on a native thread
    for each stream, which sleeps now and then. A call's copies are queued at once, before its first op runs.

    So the order of copies is the machine's: a wait that a plan lacks, or the engine drops, is a race. Time of copies is
    nobody's: they run beside the ops.
    """

    def __init__(
        self,
        arenas: Mapping[str, Arena],
        files: Mapping[str, FilePool],
        streams: tuple[str, ...],
        file_streams: frozenset[int],
        group: dist.ProcessGroup | None = None,
        seed: int = 0,
    ) -> None:
        """Raises CopiesUnavailableError where the engine cannot be built."""
        super().__init__(torch.device("cpu"), arenas, files, streams, group, "threads")
        self._owned = tuple(place for place in range(2, len(streams)) if place not in file_streams)
        self._random = random.Random(seed)
        places = [(arena.tensor.data_ptr(), arena.num_bytes) for arena in arenas.values()]
        options = (seed, SLEEP_MILLIONTHS, MOST_SLEEP_MICROSECONDS, 1)
        self._engine = CopyEngine("threads", len(streams), self._owned, places, options)
        self._copies = CopyCalls(self._engine, streams, self._owned, tuple(arenas))
        self._linked: dict[str, _Launches] = {}

    def begin_turn(self) -> None:
        """Nothing is anybody's stream here."""

    def run_call(self, call: LinkedCall, bound: Bound, recorder: Recorder) -> None:
        section = call.section
        launches = self._launches_of(section)
        gates = self._open(call, bound, section.frame)
        log = recorder.log(section, call.layer, section.num_ops)
        views, handlers, seconds, context = section.views, section.handlers, recorder.seconds, None
        wait, write = self._engine.wait, self._engine.write
        try:
            bases = self._copies.begin(call)
            self._enter(call, launches.own)
            for op, context, kind, place, waits, signals in launches.rows:
                gate = gates[op]
                if gate is not None:
                    await_gate(gate, section.frame)
                for stream, position in waits:
                    wait(stream, bases[stream] + position)
                self._maybe_sleep()
                start = perf_counter()
                handlers[op](context, *views[op])
                end = perf_counter()
                seconds[kind] += end - start
                recorder.cover(start, end)
                if log is not None:
                    log.add(op, start - recorder.origin, end - recorder.origin)
                if signals:
                    write(place, bases[place] + launches.lowered.positions[op])
            for place in launches.own:
                write(place, bases[place] + launches.lowered.ends[place])
        except Exception as error:
            if isinstance(error, CopyEngineError):
                # What freed the waiters is what to tell.
                self._check_transfers()
            if context is not None:
                error.add_note(f"in {context.describe()}")
            raise
        recorder.count(section.kind_counts)

    def end_turn(self) -> None:
        self._check_transfers()

    def before_gather(self) -> None:
        """Exchanges have run when their turn in the plan came."""

    def before_release(self) -> None:
        """So have the ops that use the weights."""

    def join(self) -> None:
        try:
            self._engine.join()
        except CopyEngineError:
            self._check_transfers()
            raise
        self._await_transfers()
        self._tickets.clear()

    def abandon(self) -> None:
        self._engine.fail("what was queued is forgotten")
        self._drop_transfers()
        self._engine.reset()

    def synchronize(self) -> None:
        """Copies of a call may wait for ops that are yet to run: `join` waits for them."""
        self._await_transfers()

    def copy(self, dst: Tensor | FileSlice, src: Tensor | FileSlice, ctx: OpContext) -> None:
        """With a file only. Raises ScheduleError for a copy between arenas, which is the engine's."""
        if isinstance(dst, Tensor) and isinstance(src, Tensor):
            raise ScheduleError(f"{ctx.describe()} was launched by Python; the copy engine launches copies")
        super().copy(dst, src, ctx)

    def take_copied_bytes(self) -> dict[str, int]:
        return self._copies.take_bytes(super().take_copied_bytes())

    def close(self) -> None:
        self._engine.fail("the run is over")
        super().close()
        self._engine.close()

    def _enter(self, call: LinkedCall, own: Sequence[int]) -> None:
        """Python's thread comes after what the masks of its streams name of the engine's."""
        mask = 0
        for place in own:
            mask |= call.waits[place]
        for place in self._owned:
            if mask >> place & 1:
                self._engine.wait(place, self._copies.bases[place])

    def _maybe_sleep(self) -> None:
        """The engine gets ahead meanwhile, as far as waits let it."""
        if self._random.random() < SLEEP_MILLIONTHS / 1e6:
            time.sleep(self._random.random() * MOST_SLEEP_MICROSECONDS / 1e6)

    def _launches_of(self, section: LinkedSection) -> _Launches:
        found = self._linked.get(section.name)
        if found is None:
            found = self._linked[section.name] = _link_launches(section, self._copies.of(section).lowered)
        return found

    def _before_transfer(self, ctx: OpContext) -> Sequence[Ticket]:
        return [*super()._before_transfer(ctx), *self._copies.before_transfer(ctx, self._places[ctx.op.stream])]

    def _note_transfer(self, ticket: Ticket, ctx: OpContext) -> None:
        super()._note_transfer(ticket, ctx)
        self._copies.note_transfer(ticket, ctx, self._places[ctx.op.stream])


_Launch = tuple[int, OpContext, int, int, tuple[tuple[int, int], ...], bool]
"""An op, its context, kind and stream, the positions of the engine's streams that it waits for, whether it signals."""


@dataclass(slots=True)
class _Launches:
    """The ops of a section that Python launches, made once. `own`: streams of Python's thread that the section has."""

    lowered: LoweredSection
    rows: list[_Launch]
    own: tuple[int, ...]


def _link_launches(section: LinkedSection, lowered: LoweredSection) -> _Launches:
    """A transfer waits, and says that it has ended, by itself."""
    rows: list[_Launch] = []
    owned = frozenset(lowered.owned)
    for op, place in enumerate(section.streams):
        if op in owned:
            continue
        is_transfer = op in section.transfers
        waits = () if is_transfer else lowered.waits_of.get(op, ())
        signals = not is_transfer and op in lowered.signalled
        rows.append((op, section.contexts[op], section.kinds[op], place, waits, signals))
    return _Launches(lowered, rows, tuple(place for place in (COMPUTE, COMM) if lowered.ends[place]))
