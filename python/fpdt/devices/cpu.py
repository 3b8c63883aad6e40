"""The CPU as a device whose streams run in a chosen order, so that a missing wait shows without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist

from fpdt.devices.host import HostRuntime
from fpdt.devices.queues import Queues
from fpdt.measure.timing import Recorder
from fpdt.run.arena import Arena
from fpdt.run.context import Bound, Frame
from fpdt.run.runtime import Gate, LinkedCall, await_gate

if TYPE_CHECKING:
    from fpdt.devices.file_pool import FilePool

Order = Literal["eager", "lazy", "random"]
LogOp = Callable[[int, float, float], None]


class CpuRuntime(HostRuntime):
    """Runs ops one at a time, in one of three legal orders:

    eager   every op when its turn comes in the plan;
    lazy    copies and exchanges as late as a wait of another op, an entry mask or the end of the step allows;
    random  all ops in a random order that keeps each stream's own order, the waits and the masks, drawn from `seed`.

    In the last two, work of the side streams is left over at the end of a turn and runs in later ones. Exchanges are
    not: they keep one order on every rank, with ZeRO's collectives too. A copy with a file starts in the order of its
    mode and goes on beside everything else.
    """

    def __init__(
        self,
        arenas: Mapping[str, Arena],
        files: Mapping[str, FilePool],
        streams: tuple[str, ...],
        group: dist.ProcessGroup | None = None,
        order: Order = "eager",
        seed: int = 0,
    ) -> None:
        super().__init__(torch.device("cpu"), arenas, files, streams, group, order)
        self._queues = None if order == "eager" else Queues(len(streams), order, seed)

    def begin_turn(self) -> None:
        if self._queues:
            self._queues.begin_turn()

    def run_call(self, call: LinkedCall, bound: Bound, recorder: Recorder) -> None:
        section = call.section
        frame = section.frame if self._queues is None else Frame(self)
        gates = self._open(call, bound, frame)
        if self._queues is not None:
            self._queues.add(call, frame, gates, recorder)
            return
        log = recorder.log(section, call.layer, section.num_ops)
        if log is None:
            _run_now(call, frame, gates, recorder)
        else:
            _run_logged(call, frame, gates, recorder, log.add)

    def end_turn(self) -> None:
        if self._queues:
            self._queues.end_turn()
        self._check_transfers()

    def before_gather(self) -> None:
        if self._queues:
            self._queues.drain_comm()

    def before_release(self) -> None:
        if self._queues:
            self._queues.drain_compute()

    def join(self) -> None:
        if self._queues:
            self._queues.drain()
        self._await_transfers()
        self._tickets.clear()

    def abandon(self) -> None:
        if self._queues:
            self._queues.clear()
        self._drop_transfers()

    def synchronize(self) -> None:
        """Nothing of the CPU's is asynchronous but transfers."""
        self._await_transfers()

    def close(self) -> None:
        if self._queues:
            self._queues.clear()
        super().close()


def _run_now(call: LinkedCall, frame: Frame, gates: list[Gate], recorder: Recorder) -> None:
    """The loop that runs nearly every op: no allocation, one reading of the clock an op.

    Time between two readings is the later op's, the loop's own share included.
    """
    section, seconds, clock = call.section, recorder.seconds, perf_counter
    context = None
    rows = zip(section.handlers, section.contexts, section.views, section.kinds, gates, strict=True)
    begun = last = clock()
    try:
        for handler, context, views, kind, gate in rows:
            if gate is not None:
                recorder.cover(begun, last)
                await_gate(gate, frame)
                begun = last = clock()
            handler(context, *views)
            now = clock()
            seconds[kind] += now - last
            last = now
    except Exception as error:
        if context is not None:
            error.add_note(f"in {context.describe()}")
        raise
    recorder.cover(begun, last)
    recorder.count(section.kind_counts)


def _run_logged(call: LinkedCall, frame: Frame, gates: list[Gate], recorder: Recorder, log: LogOp) -> None:
    """The same for a call whose single ops are asked for."""
    section, clock, origin = call.section, perf_counter, recorder.origin
    context = None
    rows = zip(section.handlers, section.contexts, section.views, section.kinds, gates, strict=True)
    try:
        for handler, context, views, kind, gate in rows:
            if gate is not None:
                await_gate(gate, frame)
            start = clock()
            handler(context, *views)
            end = clock()
            recorder.add(kind, start, end)
            log(context.op.id, start - origin, end - origin)
    except Exception as error:
        if context is not None:
            error.add_note(f"in {context.describe()}")
        raise
