"""Calls of a program as a copy engine runs their copies; whoever runs the other ops asks here for positions."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fpdt.copies import HOST, CopyEngine, CopyEngineError, LoweredSection, lower, nothing
from fpdt.devices.file_pool import FilePoolError, Ticket

if TYPE_CHECKING:
    from fpdt.run.context import OpContext
    from fpdt.run.link import LinkedSection
    from fpdt.run.runtime import LinkedCall


@dataclass(slots=True)
class SectionCopies:
    """`program` is the engine's number of them; `left_out` what it was told of last."""

    program: int
    lowered: LoweredSection
    left_out: frozenset[int] = field(default_factory=frozenset)


class CopyCalls:
    """`bases`: of the call that runs, the last position of each stream before it.

    `owned`: streams of the engine's; `closed`: see lowering.lower.
    """

    def __init__(
        self,
        engine: CopyEngine,
        streams: Sequence[str],
        owned: Sequence[int],
        pools: Sequence[str],
        closed: Collection[int] = (),
    ) -> None:
        self.engine = engine
        self.bases: Sequence[int] = [0] * len(streams)
        self._streams, self._owned, self._pools, self._closed = streams, owned, pools, closed
        self._sections: dict[str, SectionCopies] = {}
        self._between: int | None = None
        self._taken_bytes = {place: engine.stats(place).bytes for place in owned}

    def of(self, section: LinkedSection) -> SectionCopies:
        """Raises PlanError for a section whose copies the engine cannot do."""
        found = self._sections.get(section.name)
        if found is None:
            lowered = lower(section.section, self._owned, self._pools, self._closed)
            found = self._sections[section.name] = SectionCopies(self.engine.load(lowered), lowered)
        return found

    def begin(self, call: LinkedCall) -> Sequence[int]:
        """Queues all copies of the call; returns `bases`."""
        section, found = call.section, self.of(call.section)
        if section.left_out is not found.left_out:
            found.left_out = section.left_out
            self.engine.hide(found.program, [op in section.left_out for op in found.lowered.owned])
        self.bases = self.engine.run(found.program, call.args, call.waits)
        return self.bases

    def part(self) -> None:
        """What others do on their streams from now on comes after all that was queued, as between two calls."""
        if self._between is None:
            self._between = self.engine.load(nothing(len(self._streams), self._closed))
        self.engine.run(self._between, (), (0,) * len(self._streams))

    def before_transfer(self, ctx: OpContext, place: int) -> list[Ticket]:
        """A file's thread waits for the engine's copies by itself, and for those that the entry mask names."""
        lowered = self._sections[ctx.op.section.name].lowered
        needs = {wait.stream: wait.position for wait in lowered.waits_of.get(ctx.op.id, ())}
        if lowered.positions[ctx.op.id] == 1:
            needs = {**{other: 0 for other in self._owned if ctx.frame.entry[place] >> other & 1}, **needs}
        return [_CopyTicket(self.engine, other, self.bases[other] + after) for other, after in needs.items()]

    def note_transfer(self, ticket: Ticket, ctx: OpContext, place: int) -> None:
        """Its end is a position of its stream, which copies may wait for."""
        position = self.bases[place] + self._sections[ctx.op.section.name].lowered.positions[ctx.op.id]
        ticket.then(lambda error: self._end_transfer(place, position, error))

    def take_bytes(self, others: Mapping[str, int]) -> dict[str, int]:
        """`others`, by stream, and what the engine copied since the last call."""
        taken = dict(others)
        for place in self._owned:
            total = self.engine.stats(place).bytes
            taken[self._streams[place]] += total - self._taken_bytes[place]
            self._taken_bytes[place] = total
        return taken

    def _end_transfer(self, place: int, position: int, error: FilePoolError | None) -> None:
        if error is not None:
            self.engine.fail(str(error))
            return
        # Where something has failed, all who could wait for it are free.
        with contextlib.suppress(CopyEngineError):
            self.engine.write(place, position, HOST)


class _Reached(threading.Event):
    """Set when a position of the engine's is reached, or never will be."""

    def __init__(self, wait: Callable[[], None]) -> None:
        super().__init__()
        self._wait_for_it = wait

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            # What is written after a failure nobody reads.
            with contextlib.suppress(CopyEngineError):
                self._wait_for_it()
            self.set()
        return True


class _CopyTicket(Ticket):
    """Copies of a stream, up to a position."""

    def __init__(self, engine: CopyEngine, place: int, position: int) -> None:
        super().__init__()
        self._finished = _Reached(lambda: engine.wait(place, position, HOST))
