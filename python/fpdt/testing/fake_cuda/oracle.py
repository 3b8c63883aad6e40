"""What a plan orders, held against what the runtime told its streams and events; in every order that CUDA allows.

Handlers are replaced by ones that read the vector clock of the stream that is current. What of the plan's order that
clock does not imply is an error, whether or not it would show in a result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch

from fpdt.plan import Op, Plan
from fpdt.run.context import Frame, Handler, OpContext
from fpdt.run.files import FileSlice
from fpdt.run.runtime import COMPUTE, LinkedCall, Runtime
from fpdt.testing.fake_cuda.device import Clock, Device, Stream
from fpdt.testing.fake_cuda.files import MadeUpTicket


class OrderError(AssertionError):
    """Something that the plan orders, and the runtime did not."""


def require(holds: bool, otherwise: str) -> None:
    """Raises OrderError."""
    if not holds:
        raise OrderError(otherwise)


class PlannedFailure(RuntimeError):  # noqa: N818 - no error of the oracle's
    """What an op raises where the oracle wants to see how the runtime takes it."""


@dataclass(frozen=True)
class Work:
    """Something that ran: the `count`-th of a stream of the device's."""

    stream: int
    count: int

    def is_before(self, clock: Clock) -> bool:
        return clock[self.stream] >= self.count


@dataclass
class CallTrace:
    """A call that runs. `entry`: by place of a stream what it had been given before."""

    call: LinkedCall
    entry: list[list[Work]]
    done: dict[int, Work]
    """By number of the op, in the order in which they were launched."""


class Oracle:
    """Watches one runtime. `handlers` is what its executor is to be given."""

    def __init__(self, plan: Plan, runtime: Runtime, device: Device) -> None:
        self._plan, self._runtime, self._device = plan, runtime, device
        self._last: list[dict[int, Work]] = [{} for _ in plan.streams]
        """By place of a plan's stream, and by stream of the device, the last work."""
        self._of_plan: dict[str, Stream] = {}
        self._caller = device.current
        self._trace: CallTrace | None = None
        self.fail_at: int | None = None
        """The number of works after which one fails."""
        self.num_works = 0
        self.times_ops = True
        """Whether ops are to have times of their own now, or none is."""
        self.timed: Counter[str] = Counter()
        """By kind, works that have a time of their own: all but transfers with files."""
        runtime.begin_call = self._begin_call

    def handlers(self, kinds: Iterable[str]) -> dict[str, Handler]:
        return dict.fromkeys(kinds, self._note)

    def begin_turn(self) -> None:
        """The caller, DeepSpeed say, queues work of its own on its stream first."""
        self._caller = self._device.current
        self._caller.queue_work(lambda: None)
        self._last[COMPUTE][self._caller.number] = self._last_of(self._caller)

    def end_turn(self) -> None:
        self._end_call()
        if self._device.current is not self._caller:
            raise OrderError("the caller's stream is not current after a turn")

    def end_failed(self) -> None:
        """After an error the caller has its stream back, and everything that was queued is behind it."""
        self._trace = None
        if self._device.current is not self._caller:
            raise OrderError("the caller's stream is not current after an error")
        self.check_joined("what comes after an error")

    def check_joined(self, what: str) -> None:
        """The caller's stream, and for files the host, come after everything."""
        for place, works in enumerate(self._last):
            is_file = self._plan.streams[place] in self._device.file_streams
            clock = self._device.host if is_file else self._caller.clock | self._device.host
            if not all(work.is_before(clock) for work in works.values()):
                raise OrderError(f"{what} does not come after what {self._plan.streams[place]} was given")

    def check_waited(self, what: str) -> None:
        """The host comes after everything."""
        for name, works in zip(self._plan.streams, self._last, strict=True):
            if not all(work.is_before(self._device.host) for work in works.values()):
                raise OrderError(f"{what} does not wait for {name}")

    def work_on_all_streams(self) -> None:
        """Work that nobody has waited for, transfers with files too."""
        streams = {self._plan.streams[COMPUTE]: self._caller, **self._of_plan}
        for name, stream in streams.items():
            stream.queue_work(lambda: None)
            self._last[self._plan.streams.index(name)][stream.number] = self._last_of(stream)
        for link in self._plan.header.links:
            pool = self._runtime.files.get(link.to)
            if pool is not None:
                ticket = cast(MadeUpTicket, pool.write(0, torch.zeros(1, dtype=torch.uint8)))
                self._runtime._transfers.append(ticket)
                self._last[self._plan.streams.index(link.stream)][ticket.queue] = _work_of(ticket)

    def check_idle(self, what: str) -> None:
        if any(stream.queue for stream in (self._caller, *self._of_plan.values())):
            raise OrderError(f"{what} does not wait for work that may use it")

    def _begin_call(self, call: LinkedCall, frame: Frame) -> None:
        self._end_call()
        self._trace = CallTrace(call, [list(works.values()) for works in self._last], {})
        if frame.layer_number != call.layer or frame.args != call.args:
            raise OrderError(f"a call of {call.section.name} has the frame of another")

    def _end_call(self) -> None:
        trace, self._trace = self._trace, None
        if trace is not None and len(trace.done) != trace.call.section.num_ops:
            raise OrderError(f"{len(trace.done)} of {trace.call.section.num_ops} ops of {trace.call.section.name} ran")

    def _note(self, ctx: OpContext, *views: Any) -> None:
        trace, op = self._trace, ctx.op
        if trace is None or trace.call.section.section is not op.section or not _is_next(op, trace):
            raise OrderError(f"{ctx.describe()} ran out of turn")
        self.num_works += 1
        if self.num_works == self.fail_at:
            raise PlannedFailure
        self._check_views(ctx, views)
        place = self._plan.streams.index(op.stream)
        if op.stream in self._device.file_streams:
            clock, work = self._transfer(ctx, *views)
        else:
            clock, work = self._launch(op)
            self.timed[op.kind] += 1
        self._check(ctx, place, clock, trace)
        trace.done[op.id] = work
        self._last[place][work.stream] = work

    def _check_views(self, ctx: OpContext, views: tuple[Any, ...]) -> None:
        """They are those of the call's arguments."""
        for access, view in zip(ctx.op.accesses, _flat(views), strict=True):
            buffer = self._plan.buffers[access.buffer]
            offset = buffer.offset + access.instance(ctx.frame.args) * buffer.instance_bytes
            if isinstance(view, FileSlice):
                found = view.offset
            else:
                offset += access.start * buffer.row_bytes
                found = view.data_ptr() - self._runtime.arenas[buffer.pool].tensor.data_ptr()
            if found != offset:
                raise OrderError(f"{ctx.describe()} has the views of another call")

    def _launch(self, op: Op) -> tuple[Clock, Work]:
        stream = self._device.current
        compute = self._plan.streams[COMPUTE]
        expected = self._caller if op.stream == compute else self._of_plan.setdefault(op.stream, stream)
        others = [self._caller, *(own for name, own in self._of_plan.items() if name != op.stream)]
        if stream is not expected or (op.stream != compute and any(stream is other for other in others)):
            raise OrderError(f"op {op.id} {op.kind} of {op.section.name} is not on the stream {op.stream}")
        clock = stream.clock | self._device.host
        if (stream.last_timed is not None) != self.times_ops:
            begins = "does not begin with it" if self.times_ops else "is not asked for"
            raise OrderError(f"the time of op {op.id} {op.kind} of {op.section.name} {begins}")
        stream.queue_work(lambda: None)
        return clock, self._last_of(stream)

    def _transfer(self, ctx: OpContext, reads: tuple[Any, ...], writes: tuple[Any, ...]) -> tuple[Clock, Work]:
        """Handed over as the worker's handler does; its clock is that of the file's queue."""
        for read, write in zip(reads, writes, strict=True):
            ctx.runtime.copy(write, read, ctx)
        ticket = cast(MadeUpTicket, ctx.frame.tickets[ctx.op.id])
        return ticket.clock, _work_of(ticket)

    def _check(self, ctx: OpContext, place: int, clock: Clock, trace: CallTrace) -> None:
        for wait in ctx.op.waits:
            if wait not in trace.done or not trace.done[wait].is_before(clock):
                raise OrderError(f"{ctx.describe()} does not come after op {wait}")
        for other, works in enumerate(trace.entry):
            if trace.call.waits[place] >> other & 1 and not all(work.is_before(clock) for work in works):
                raise OrderError(f"{ctx.describe()} does not come after what {self._plan.streams[other]} had before")

    def _last_of(self, stream: Stream) -> Work:
        return Work(stream.number, stream.clock[stream.number])


def _is_next(op: Op, trace: CallTrace) -> bool:
    """Whether the op has not run, and none has that comes later on its stream.

    Where a section moves data to or from a file, and the host may wait, ops come in the plan's order.
    """
    if trace.call.section.transfers:
        return len(trace.done) == op.id
    streams = trace.call.section.streams
    return all(other < op.id or (other > op.id and streams[other] != streams[op.id]) for other in trace.done)


def _work_of(ticket: MadeUpTicket) -> Work:
    return Work(ticket.queue, ticket.clock[ticket.queue])


def _flat(views: tuple[Any, ...]) -> Iterator[Any]:
    for view in views:
        if isinstance(view, tuple):
            yield from view
        else:
            yield view
