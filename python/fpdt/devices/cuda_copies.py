"""CUDA with the native copy engine: copies of a call are queued at once, and waits go by positions of streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.cuda import Event

from fpdt.copies import HOST, CopiesUnavailableError, CopyEngine, CopyEngineError, LoweredSection, driver_functions
from fpdt.devices import cuda
from fpdt.devices.copy_calls import CopyCalls
from fpdt.devices.copy_trial import try_copies
from fpdt.devices.file_pool import FilePool, Ticket
from fpdt.devices.launch_order import launch_order
from fpdt.errors import ScheduleError
from fpdt.measure.timing import Recorder
from fpdt.run.arena import Arena
from fpdt.run.context import Bound, OpContext
from fpdt.run.runtime import COMM, COMPUTE, LinkedCall, await_gate

if TYPE_CHECKING:
    from fpdt.run.files import FileSlice
    from fpdt.run.link import LinkedSection

PYTHONS = (COMPUTE, COMM)
"""Places of the streams whose ops Python launches."""


def cuda_runtime(is_native: bool, *arguments: Any) -> cuda.CudaRuntime:
    """With the engine where it is asked for and works, else by events; its remarks say which, and why."""
    if not is_native:
        return cuda.CudaRuntime(*arguments)
    try:
        return CopyingCudaRuntime(*arguments)
    except (CopiesUnavailableError, CopyEngineError) as error:
        runtime = cuda.CudaRuntime(*arguments)
        runtime.remarks = (f"copies are launched from Python, by events, for there are no native ones: {error}",)
        return runtime


class CopyingCudaRuntime(cuda.CudaRuntime):
    """The engine's threads launch copies between arenas, as soon as what they wait for has been launched; Python the
    other ops, in the same order as without. Compute and exchanges wait for each other by events.

    A step whose ops are timed is launched by Python alone: a copy has a time only between two events. All streams are
    joined when a step begins, so either way finds what the other left.
    """

    def __init__(
        self,
        arenas: Mapping[str, Arena],
        files: Mapping[str, FilePool],
        streams: tuple[str, ...],
        file_streams: frozenset[int],
        group: dist.ProcessGroup | None = None,
        device_index: int = 0,
    ) -> None:
        """Raises CopiesUnavailableError or CopyEngineError where there is no engine, or it does not pass its trial."""
        functions = driver_functions()
        super().__init__(arenas, files, streams, file_streams, group, device_index)
        self._owned = tuple(place for place in range(2, len(streams)) if place not in file_streams)
        options = (device_index, *functions, *self._handles())
        places = [(arena.tensor.data_ptr(), arena.num_bytes) for arena in arenas.values()]
        self._is_native = False
        self._native: dict[str, _NativeLaunches] = {}
        try:
            self._engine = CopyEngine("cuda", len(streams), self._owned, places, options)
        except Exception:
            super().close()
            raise
        try:
            try_copies(self._engine, self._owned, list(arenas.values()), len(streams), self._compute)
            self._engine.reset(self._handles())
            self._copies = CopyCalls(self._engine, streams, self._owned, tuple(arenas), PYTHONS)
            self._copies.part()
        except Exception:
            self.close()
            raise
        self.copy_mode = "native"
        self.remarks = ("copies are launched by native threads; from Python in steps whose ops are timed",)

    def run_call(self, call: LinkedCall, bound: Bound, recorder: Recorder) -> None:
        self._is_native = not recorder.times_ops
        if not self._is_native:
            super().run_call(call, bound, recorder)
            return
        section = call.section
        launches = self._native_of(section)
        gates = self._open(call, bound, section.frame)
        views, handlers, context, current = section.views, section.handlers, None, self._compute
        wait, write = self._engine.wait, self._engine.write
        try:
            bases = self._copies.begin(call)
            self._enter_natively(call, bases)
            for op, context, place, events, waits, own, position in launches.rows:
                gate = gates[op]
                if gate is not None:
                    await_gate(gate, section.frame)
                stream = self._streams[place]
                if stream is None:
                    handlers[op](context, *views[op])
                    continue
                if stream is not current:
                    torch.cuda.set_stream(stream)
                    current = stream
                for event in events:
                    stream.wait_event(event)
                for other, after in waits:
                    wait(other, bases[other] + after, stream.cuda_stream)
                handlers[op](context, *views[op])
                if own is not None:
                    own.record(stream)
                if position:
                    write(place, bases[place] + position, stream.cuda_stream)
        except Exception as error:
            if isinstance(error, CopyEngineError):
                # What made the engine fail is what to tell.
                self._check_transfers()
            if context is not None:
                error.add_note(f"in {context.describe()}")
            raise
        finally:
            torch.cuda.set_stream(self._compute)
        recorder.count(section.kind_counts)

    def join(self) -> None:
        """The engine's threads have launched what they were given, so that streams can be joined."""
        try:
            self._engine.join()
        except CopyEngineError:
            self._check_transfers()
            raise
        super().join()

    def abandon(self) -> None:
        self._engine.fail("what was queued is forgotten")
        super().abandon()
        self._engine.reset(self._handles())
        self._copies.part()

    def copy(self, dst: Tensor | FileSlice, src: Tensor | FileSlice, ctx: OpContext) -> None:
        """Between arenas where the step is timed only. Raises ScheduleError for a copy that is the engine's."""
        if self._is_native and isinstance(dst, Tensor) and isinstance(src, Tensor):
            raise ScheduleError(f"{ctx.describe()} was launched by Python; the copy engine launches copies")
        super().copy(dst, src, ctx)

    def take_copied_bytes(self) -> dict[str, int]:
        return self._copies.take_bytes(super().take_copied_bytes())

    def close(self) -> None:
        """Threads of files may wait for the engine, and what it launched uses memory: both end before it does."""
        try:
            self._engine.fail("the run is over")
            self._drop_transfers()
            self._engine.reset(self._handles())
        finally:
            self._engine.close()
            super().close()

    def _handles(self) -> list[int]:
        return [HOST if stream is None else int(stream.cuda_stream) for stream in self._streams]

    def _enter_natively(self, call: LinkedCall, bases: Sequence[int]) -> None:
        """The end of the calls before is said where somebody asks, and now: what the caller did since is part of it."""
        asked = 0
        for place in self._owned:
            asked |= call.waits[place]
        for place in PYTHONS:
            own, mask = self._streams[place], call.waits[place]
            assert own is not None
            if asked >> place & 1:
                self._engine.write(place, bases[place], own.cuda_stream)
            for other in self._owned:
                if mask >> other & 1:
                    self._engine.wait(other, bases[other], own.cuda_stream)
        for place, other in (PYTHONS, PYTHONS[::-1]):
            if call.waits[place] >> other & 1:
                self._entries[other].record(self._streams[other])
                own = self._streams[place]
                assert own is not None
                own.wait_event(self._entries[other])

    def _native_of(self, section: LinkedSection) -> _NativeLaunches:
        found = self._native.get(section.name)
        if found is None:
            found = self._native[section.name] = _link(section, self._copies.of(section).lowered, self._owned)
        return found

    def _before_transfer(self, ctx: OpContext) -> Sequence[Ticket]:
        if not self._is_native:
            return super()._before_transfer(ctx)
        section, place = ctx.op.section, self._places[ctx.op.stream]
        numbers = [*ctx.frame.afters.get(ctx.op.id, ())]
        awaited = {int(section.columns.stream[section.first + wait]) for wait in ctx.op.waits}
        if self._native[section.name].first_ops[place] == ctx.op.id:
            awaited |= {other for other in PYTHONS if ctx.frame.entry[place] >> other & 1}
        streams = [stream for other in PYTHONS if other in awaited and (stream := self._streams[other]) is not None]
        return [
            *(ctx.frame.tickets[number] for number in numbers),
            *(cuda.EventTicket(stream) for stream in streams),
            *self._copies.before_transfer(ctx, place),
        ]

    def _note_transfer(self, ticket: Ticket, ctx: OpContext) -> None:
        super()._note_transfer(ticket, ctx)
        if self._is_native:
            self._copies.note_transfer(ticket, ctx, self._places[ctx.op.stream])


_Launch = tuple[int, OpContext, int, tuple[Event, ...], tuple[tuple[int, int], ...], Event | None, int]
"""An op, its context and stream; the events and the positions of the engine's that it waits for; its own event where
Python waits for it, and its position where the engine does, else 0."""


@dataclass(frozen=True, slots=True)
class _NativeLaunches:
    """The ops of a section that Python launches, made once."""

    rows: list[_Launch]
    first_ops: list[int]


def _link(section: LinkedSection, lowered: LoweredSection, owned: Sequence[int]) -> _NativeLaunches:
    """In the order in which all ops would be launched: no thread of the engine's waits for what comes later in it."""
    streams, transfers = section.streams, section.transfers
    all_waits = [section.section.waits(op) for op in range(section.num_ops)]
    events: list[Event | None] = [None] * section.num_ops
    awaited: list[tuple[Event, ...]] = []
    for op, waits in enumerate(all_waits):
        pairs = [wait for wait in waits if {streams[op], streams[wait]} == set(PYTHONS)]
        awaited.append(tuple(cuda.event_of(events, wait) for wait in pairs))
    order = range(section.num_ops) if transfers else launch_order(streams, all_waits)
    rows: list[_Launch] = []
    for op in order:
        if streams[op] in owned:
            continue
        positions = () if op in transfers else lowered.waits_of.get(op, ())
        signal = lowered.positions[op] if op in lowered.signalled and op not in transfers else 0
        rows.append((op, section.contexts[op], streams[op], awaited[op], positions, events[op], signal))
    return _NativeLaunches(rows, section.first_ops)
