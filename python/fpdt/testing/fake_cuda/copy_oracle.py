"""The oracle where an engine launches copies: what it is told to do is held against the plan, piece by piece.

The engine's threads come when they come, so what a plan orders is looked at when everything of a micro-step is known.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

from fpdt.plan import Access, Op, Plan
from fpdt.run.context import Frame, OpContext
from fpdt.run.runtime import LinkedCall, Runtime
from fpdt.testing.fake_cuda.device import Clock, Device, Stream
from fpdt.testing.fake_cuda.driver import Piece
from fpdt.testing.fake_cuda.oracle import CallTrace, Oracle, OrderError, Work


@dataclass
class _Ordered:
    """A call. `begins`: by number of the op what surely was done before it, or before each piece of it, began."""

    trace: CallTrace
    begins: defaultdict[int, list[Clock]] = field(default_factory=lambda: defaultdict(list))


class CopyOracle(Oracle):
    """`owned`: places of the engine's streams."""

    def __init__(self, plan: Plan, runtime: Runtime, device: Device, owned: tuple[int, ...]) -> None:
        super().__init__(plan, runtime, device)
        self._owned = owned
        self._calls: list[_Ordered] = []
        self._expected: dict[int, deque[tuple[_Ordered, int, Piece]]] = {place: deque() for place in owned}
        self.num_pieces = self.num_bytes = 0

    def hear(self, stream: Stream, pieces: list[Piece], clock: Clock) -> None:
        """What the driver was told to copy."""
        place = next((place for place in self._owned if self._engines(place) is stream), None)
        if place is None:
            raise OrderError(f"a copy on stream {stream.number}, which is not of copies")
        for piece in pieces:
            if not self._expected[place]:
                raise OrderError(f"{self._plan.streams[place]} copies {piece}, which nobody asked for")
            call, op, expected = self._expected[place].popleft()
            if piece != expected:
                raise OrderError(f"{self._plan.streams[place]} copies {piece}, the plan {expected}")
            call.begins[op].append(clock)
            call.trace.done[op] = self._last[place][stream.number] = self._last_of(stream)
            self.num_pieces += 1
            self.num_bytes += piece.num_bytes

    def check_joined(self, what: str) -> None:
        self._device.settle()
        super().check_joined(what)
        if not self.times_ops:
            self._check_order()

    def check_idle(self, what: str) -> None:
        super().check_idle(what)
        if any(self._engines(place).queue for place in self._owned):
            raise OrderError(f"{what} does not wait for copies")

    def end_failed(self) -> None:
        """What an error left out nobody waits for."""
        self._device.settle()
        self._calls.clear()
        for expected in self._expected.values():
            expected.clear()
        super().end_failed()

    def _begin_call(self, call: LinkedCall, frame: Frame) -> None:
        super()._begin_call(call, frame)
        if self.times_ops or self._trace is None:
            return
        self._calls.append(_Ordered(self._trace))
        for op in call.section.section.make_ops():
            place = self._plan.streams.index(op.stream)
            if place in self._owned:
                views = zip(op.reads, op.writes, strict=True)
                pieces = [self._piece(read, write, call.args) for read, write in views]
                self._expected[place] += [(self._calls[-1], op.id, piece) for piece in pieces]

    def _end_call(self) -> None:
        if self.times_ops:
            super()._end_call()

    def _check(self, ctx: OpContext, place: int, clock: Clock, trace: CallTrace) -> None:
        if self.times_ops:
            super()._check(ctx, place, clock, trace)
        else:
            self._calls[-1].begins[ctx.op.id].append(clock)

    def _launch(self, op: Op) -> tuple[Clock, Work]:
        if not self.times_ops and self._plan.streams.index(op.stream) in self._owned:
            raise OrderError(f"Python launched op {op.id} {op.kind} of {op.section.name}")
        return super()._launch(op)

    def _check_order(self) -> None:
        before: dict[int, Work] = {}
        for call in self._calls:
            done, section = call.trace.done, call.trace.call.section
            if len(done) != section.num_ops:
                raise OrderError(f"{len(done)} of {section.num_ops} ops of {section.name} ran")
            for op in section.section.make_ops():
                self._check_op(op, call, before)
            before |= {
                section.streams[op]: done[op] for op in range(section.num_ops) if section.streams[op] in self._owned
            }
        self._calls.clear()

    def _check_op(self, op: Op, call: _Ordered, before: dict[int, Work]) -> None:
        """`before`: by stream of the engine's the last copy of an earlier call."""
        trace, place = call.trace, self._plan.streams.index(op.stream)
        what = f"op {op.id} {op.kind} of {op.section.name}"
        for clock in call.begins[op.id]:
            for wait in op.waits:
                if not trace.done[wait].is_before(clock):
                    raise OrderError(f"{what} does not come after op {wait}")
            for other, works in enumerate(trace.entry):
                named = [before[other]] if other in before else [] if other in self._owned else works
                if trace.call.waits[place] >> other & 1 and not all(work.is_before(clock) for work in named):
                    raise OrderError(f"{what} does not come after what {self._plan.streams[other]} had before")

    def _engines(self, place: int) -> Stream:
        streams: list[Stream] = self._runtime._streams  # type: ignore[attr-defined]
        return streams[place]

    def _piece(self, read: Access, write: Access, args: tuple[int, ...]) -> Piece:
        num_bytes = (read.end - read.start) * self._plan.buffers[read.buffer].row_bytes
        return Piece(self._address(write, args), self._address(read, args), num_bytes)

    def _address(self, access: Access, args: tuple[int, ...]) -> int:
        buffer = self._plan.buffers[access.buffer]
        offset = buffer.offset + access.instance(args) * buffer.instance_bytes + access.start * buffer.row_bytes
        return self._runtime.arenas[buffer.pool].tensor.data_ptr() + offset
