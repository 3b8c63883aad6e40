"""Streams of a CPU as queues of ops: what is legal to run next, and which of it is chosen."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

from fpdt.measure.timing import CallLog, Recorder
from fpdt.run.context import Frame, Handler, OpContext
from fpdt.run.link import ViewTuple
from fpdt.run.runtime import COMM, COMPUTE, Gate, LinkedCall, await_gate

RESHUFFLE_PROBABILITY = 0.125
LEAVE_PROBABILITY = 0.5
"""Of stopping, at each op that could run, when a turn may end."""


class Queued:
    """An op that waits to run: after the ops in `needs`, and those before it on its stream."""

    __slots__ = ("context", "gate", "handler", "is_done", "kind", "log", "needs", "recorder", "stream", "views")

    def __init__(
        self,
        handler: Handler,
        context: OpContext,
        views: ViewTuple,
        kind: int,
        stream: int,
        gate: Gate,
        needs: list[Queued],
        recorder: Recorder,
        log: CallLog | None,
    ) -> None:
        self.handler, self.context, self.views = handler, context, views
        self.kind, self.stream, self.gate, self.needs = kind, stream, gate, needs
        self.recorder, self.log = recorder, log
        self.is_done = False

    @property
    def is_ready(self) -> bool:
        return all(item.is_done for item in self.needs)

    def run(self) -> None:
        context, recorder = self.context, self.recorder
        try:
            for need in self.needs:
                # A transfer that has started is not yet done.
                ticket = need.context.frame.tickets.get(need.context.op.id)
                if ticket is not None:
                    ticket.wait()
            if self.gate is not None:
                await_gate(self.gate, context.frame)
            start = perf_counter()
            self.handler(context, *self.views)
            end = perf_counter()
        except Exception as error:
            error.add_note(f"in {context.describe()}")
            raise
        self.is_done = True
        self.needs = []
        recorder.add(self.kind, start, end)
        if self.log is not None:
            self.log.add(context.op.id, start - recorder.origin, end - recorder.origin)


class Queues:
    """Ops of all calls so far that have not run.

    lazy: compute ops at once, the others when a compute op needs them. random: the streams have random priorities,
    which in every other turn stay, so that one stream comes last wherever the waits let it, and in the others change
    now and then. Orders depend on the plan and the seed alone.
    """

    def __init__(self, num_streams: int, mode: str, seed: int) -> None:
        self._is_lazy = mode == "lazy"
        self._random = random.Random(seed)
        self._priorities = list(range(num_streams))
        self._is_restless = self._random.random() < 0.5
        self._pending: list[deque[Queued]] = [deque() for _ in range(num_streams)]

    def begin_turn(self) -> None:
        self._is_restless = not self._is_restless
        self._random.shuffle(self._priorities)

    def add(self, call: LinkedCall, frame: Frame, gates: Sequence[Gate], recorder: Recorder) -> None:
        """Queue the ops of a call; some run at once."""
        section = call.section
        log = recorder.log(section, call.layer, section.num_ops)
        entry = self._entry_needs(call)
        items: list[Queued] = []
        for op_id, (handler, context) in enumerate(zip(section.handlers, section.contexts, strict=True)):
            stream = section.streams[op_id]
            needs = [items[wait] for wait in section.section.waits(op_id)]
            if section.first_ops[stream] == op_id:
                needs += entry[stream]
            own = OpContext(context.op, frame)
            item = Queued(
                handler, own, section.views[op_id], section.kinds[op_id], stream, gates[op_id], needs, recorder, log
            )
            items.append(item)
            self._pending[stream].append(item)
            if self._is_lazy and stream == COMPUTE:
                self._complete(item)
        if not self._is_lazy:
            self._run_some()

    def end_turn(self) -> None:
        """The caller goes on with what compute did, and exchanges keep their order with collectives of others."""
        if self._is_lazy:
            self.drain_compute()
        else:
            self._run_until(lambda: not self._pending[COMPUTE] and not self._pending[COMM])
            self._run_some()
        self.drain_comm()

    def drain(self) -> None:
        self._run_until(lambda: not any(self._pending))

    def drain_comm(self) -> None:
        if self._pending[COMM]:
            self._complete(self._pending[COMM][-1])

    def drain_compute(self) -> None:
        if self._pending[COMPUTE]:
            self._complete(self._pending[COMPUTE][-1])

    def clear(self) -> None:
        for queue in self._pending:
            queue.clear()

    def _entry_needs(self, call: LinkedCall) -> list[list[Queued]]:
        """For each stream what its first op of the call waits for: the last op queued on the streams of its mask."""
        last = [queue[-1] if queue else None for queue in self._pending]
        return [
            [item for other, item in enumerate(last) if item is not None and mask >> other & 1] for mask in call.waits
        ]

    def _run_some(self) -> None:
        """A random number of the ops that could run."""
        while self._random.random() > LEAVE_PROBABILITY and (ready := self._ready()):
            self._run_head(self._choose(ready))

    def _run_until(self, is_enough: Callable[[], bool]) -> None:
        """Some op is always ready: each needs earlier ones only."""
        while not is_enough():
            self._run_head(self._choose(self._ready()))

    def _ready(self) -> list[Queued]:
        return [queue[0] for queue in self._pending if queue and queue[0].is_ready]

    def _choose(self, ready: Sequence[Queued]) -> Queued:
        if self._is_lazy:
            return ready[0]
        if self._is_restless and self._random.random() < RESHUFFLE_PROBABILITY:
            self._random.shuffle(self._priorities)
        return min(ready, key=lambda item: self._priorities.index(item.stream))

    def _run_head(self, item: Queued) -> None:
        self._pending[item.stream].popleft()
        item.run()

    def _complete(self, item: Queued) -> None:
        """Run an op and, before it, the earlier ops of its stream and what each of them needs; nothing else."""
        queue = self._pending[item.stream]
        while not item.is_done:
            head = queue[0]
            for need in head.needs:
                if not need.is_done:
                    self._complete(need)
            if queue and queue[0] is head:
                self._run_head(head)
