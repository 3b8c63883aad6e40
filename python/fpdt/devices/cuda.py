"""CUDA: one stream per plan stream, an event for every op that another waits for, page-locked host arenas."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.cuda import Event, Stream

from fpdt.devices.device_memory import allocator_peak_bytes, reset_allocator_peak
from fpdt.devices.file_pool import FilePool, Ticket
from fpdt.devices.host_arena import PageLocks
from fpdt.devices.launch_order import launch_order
from fpdt.measure.device_timing import EventRecorder
from fpdt.measure.timing import Recorder
from fpdt.run.arena import Arena
from fpdt.run.context import Bound, OpContext
from fpdt.run.link import LinkedSection
from fpdt.run.runtime import COMM, COMPUTE, LinkedCall, Runtime, await_gate

TURNS_AHEAD = 2
"""How many turns the host may be ahead: weights that ZeRO gathered for a turn are free when the device has run it."""


class CudaRuntime(Runtime):
    """The compute stream is the one current when a turn begins, so that ZeRO's own work is ordered with the ops.

    Tensors that an op makes are freed to the stream they were made on, and arenas are never freed, so no tensor needs
    record_stream. Streams of links with a file have no CUDA stream: the host hands their copies to the file's threads.
    Only for transfers that an op needs does the host wait.
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
        device = torch.device("cuda", device_index)
        super().__init__(device, arenas, files, streams, group, "events")
        self._locks = PageLocks(arenas.values())
        self._compute = torch.cuda.current_stream(device)
        # Exchanges come first: their few blocks would else start when those of a long kernel have all been issued.
        side: list[Stream | None] = [
            None if place in file_streams else Stream(device, -1 if place == COMM else 0)  # type: ignore[no-untyped-call]
            for place in range(1, len(streams))
        ]
        self._streams: list[Stream | None] = [self._compute, *side]
        self._entries = [Event() for _ in streams]  # type: ignore[no-untyped-call]
        self._turn_ends = [Event() for _ in range(TURNS_AHEAD)]  # type: ignore[no-untyped-call]
        self._turn = 0
        self._linked: dict[str, _Launches] = {}

    def begin_turn(self) -> None:
        self._compute = torch.cuda.current_stream(self.device)
        self._streams[COMPUTE] = self._compute

    def run_call(self, call: LinkedCall, bound: Bound, recorder: Recorder) -> None:
        assert isinstance(recorder, EventRecorder)
        section = call.section
        gates = self._open(call, bound, section.frame)
        self._enter(call)
        log, is_timed = recorder.log(section, call.layer, section.num_ops), recorder.times_ops
        views, handlers, context, current = section.views, section.handlers, None, self._compute
        try:
            for op, context, kind, place, waits, own in self._launches_of(section).rows:
                handler, gate = handlers[op], gates[op]
                if gate is not None:
                    await_gate(gate, section.frame)
                stream = self._streams[place]
                if stream is None:
                    handler(context, *views[op])
                    continue
                if stream is not current:
                    torch.cuda.set_stream(stream)
                    current = stream
                for event in waits:
                    stream.wait_event(event)
                pair = recorder.open(kind, op, log, stream) if is_timed else None
                handler(context, *views[op])
                if pair is not None:
                    recorder.close(pair, stream)
                if own is not None:
                    own.record(stream)
        except Exception as error:
            if context is not None:
                error.add_note(f"in {context.describe()}")
            raise
        finally:
            torch.cuda.set_stream(self._compute)
        recorder.count(section.kind_counts)

    def end_turn(self) -> None:
        """Compute is the caller's own stream; the others go on by themselves.

        The host waits until the turn before has ended: the device has one to do, and ZeRO gathers no more weights
        meanwhile.
        """
        self._turn_ends[self._turn % TURNS_AHEAD].record(self._compute)
        self._turn += 1
        self._turn_ends[self._turn % TURNS_AHEAD].synchronize()
        self._check_transfers()

    def before_gather(self) -> None:
        """Every rank launches its collectives in the order of the plan."""

    def before_release(self) -> None:
        """Weights are freed to the stream of compute, which is current."""

    def join(self) -> None:
        self._join_streams()
        self._await_transfers()
        self._tickets.clear()

    def abandon(self) -> None:
        """Ops already launched finish by themselves; the streams are joined so that nothing overtakes them."""
        self._join_streams()
        self._drop_transfers()

    def make_recorder(self, kinds: tuple[str, ...], record_layers: int = 0) -> Recorder:
        return EventRecorder(self, kinds, record_layers)

    def mark(self) -> Event:
        return self.remark(None)

    def remark(self, mark: Event | None, stream: Stream | None = None) -> Event:
        event = Event(enable_timing=True) if mark is None else mark  # type: ignore[no-untyped-call]
        event.record(stream)
        return event

    def is_reached(self, mark: Event) -> bool:
        return bool(mark.query())  # type: ignore[no-untyped-call]

    def await_mark(self, mark: Event) -> None:
        mark.synchronize()

    def seconds_between(self, start: Event, end: Event) -> float:
        return float(start.elapsed_time(end)) / 1000

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)
        self._await_transfers()

    def device_peak_bytes(self) -> int | None:
        return allocator_peak_bytes(self.device)

    def reset_device_peak(self) -> None:
        reset_allocator_peak(self.device)

    def close(self) -> None:
        torch.cuda.synchronize(self.device)
        super().close()
        self._locks.release()

    def _join_streams(self) -> None:
        """The caller may have another stream than when the last turn began."""
        caller = torch.cuda.current_stream(self.device)
        for stream in self._streams:
            if stream is not None and stream is not caller:
                caller.wait_stream(stream)

    def _enter(self, call: LinkedCall) -> None:
        """Order what comes after what the entry mask names; one event a stream, used anew by every call."""
        wanted = 0
        for mask in call.waits:
            wanted |= mask
        for place, stream in enumerate(self._streams):
            if stream is not None and wanted >> place & 1:
                self._entries[place].record(stream)
        for place, mask in enumerate(call.waits):
            stream = self._streams[place]
            if stream is None:
                continue
            for other, before in enumerate(self._streams):
                if mask >> other & 1 and before is not None and other != place:
                    stream.wait_event(self._entries[other])

    def _launches_of(self, section: LinkedSection) -> _Launches:
        found = self._linked.get(section.name)
        if found is None:
            found = self._linked[section.name] = _link_launches(section)
        return found

    def _before_transfer(self, ctx: OpContext) -> Sequence[Ticket]:
        """A file's thread waits for the streams whose work so far holds what the transfer waits for."""
        section, frame = ctx.op.section, ctx.frame
        places = {int(section.columns.stream[section.first + wait]) for wait in ctx.op.waits}
        own = self._places[ctx.op.stream]
        linked = self._linked[section.name]
        if linked.first_ops[own] == ctx.op.id:
            places |= {other for other in range(len(self._streams)) if frame.entry[own] >> other & 1}
        streams = [stream for place in sorted(places) if (stream := self._streams[place]) is not None]
        return [*super()._before_transfer(ctx), *(EventTicket(stream) for stream in streams)]


_Launch = tuple[int, OpContext, int, int, tuple[Event, ...], Event | None]
"""An op, its context, kind and stream, the events it waits for, and its own where somebody waits for it."""


@dataclass(frozen=True, slots=True)
class _Launches:
    """The ops of a section as the host launches them, made once."""

    rows: list[_Launch]
    first_ops: list[int]


def _link_launches(section: LinkedSection) -> _Launches:
    """Ops of one stream are ordered already, and those that wait for a transfer have a gate."""
    own: list[Event | None] = [None] * section.num_ops
    streams, all_waits = section.streams, [section.section.waits(op) for op in range(section.num_ops)]
    awaited = [
        tuple(
            event_of(own, wait)
            for wait in waits
            if streams[wait] != streams[op] and wait not in section.transfers and op not in section.transfers
        )
        for op, waits in enumerate(all_waits)
    ]
    # Where the host waits for transfers, nothing may come later than the plan has it.
    order = range(section.num_ops) if section.transfers else launch_order(streams, all_waits)
    columns = (section.contexts, section.kinds, streams, awaited, own)
    rows = list(zip(range(section.num_ops), *columns, strict=True))
    return _Launches([rows[op] for op in order], section.first_ops)


def event_of(own: list[Event | None], op: int) -> Event:
    event = own[op]
    if event is None:
        event = own[op] = Event()  # type: ignore[no-untyped-call]
    return event


class _Reached(threading.Event):
    """Set when a CUDA event is reached."""

    def __init__(self, event: Event) -> None:
        super().__init__()
        self._event = event

    def is_set(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def wait(self, timeout: float | None = None) -> bool:
        self._event.synchronize()
        return True


class EventTicket(Ticket):
    """All that a stream has been given so far. The event is its own: a reused one would wait for later work too."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._finished = _Reached(stream.record_event())
