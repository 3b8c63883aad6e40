"""The CPU as a device whose streams run in a chosen order, so that a missing wait shows without a GPU."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist

from fpdt.errors import ScheduleError
from fpdt.plan import STREAMS, Op
from fpdt.run.arena import mapped_arena
from fpdt.run.runtime import Body, Runtime

CopyMode = Literal["eager", "lazy", "random"]
RESHUFFLE_PROBABILITY = 0.125


class Launch(NamedTuple):
    op: Op
    body: Body


class CpuRuntime(Runtime):
    """Runs bodies one at a time, in one of three legal orders:

    eager   every op when it is launched;
    lazy    copies and exchanges as late as a wait of another op, or the end of the part, allows;
    random  all ops in a random order that keeps each stream's own order and the waits, drawn from `seed`: the streams
            have random priorities, which in every other part stay, so that one stream comes last wherever the waits
            let it, and in the others change now and then.

    Orders depend on the plan and the seed alone. Exchanges keep their order on every rank, so that ranks with
    different seeds still meet in the same collectives.
    """

    def __init__(
        self,
        arena_bytes: Mapping[str, int],
        group: dist.ProcessGroup | None = None,
        copy_mode: CopyMode = "eager",
        seed: int = 0,
    ) -> None:
        arenas = {pool: mapped_arena(pool, num_bytes) for pool, num_bytes in arena_bytes.items()}
        super().__init__(torch.device("cpu"), arenas, group)
        self._copy_mode = copy_mode
        self._random = random.Random(seed)
        self._priorities = list(STREAMS)
        self._is_restless = self._random.random() < 0.5
        self._pending: dict[str, deque[Launch]] = {stream: deque() for stream in STREAMS}
        self._stream_of: dict[int, str] = {}
        self._done: set[int] = set()
        self._started = time.perf_counter()

    def begin_part(self, ops: Sequence[Op]) -> None:
        self.abandon_part()
        self._is_restless = not self._is_restless
        self._random.shuffle(self._priorities)

    def launch(self, op: Op, body: Body) -> None:
        self._pending[op.stream].append(Launch(op, body))
        self._stream_of[op.id] = op.stream
        if self._copy_mode == "eager" or (self._copy_mode == "lazy" and op.stream == "compute"):
            self._complete(op.id)

    def run_external(self, op: Op, body: Body) -> None:
        self.finish_part()
        self._run(Launch(op, body))

    def finish_part(self) -> None:
        while heads := [queue[0] for queue in self._pending.values() if queue]:
            ready = [head for head in heads if self._done.issuperset(head.op.waits)]
            if not ready:
                raise ScheduleError(_describe_deadlock(heads, self._done))
            self._run(self._pending[self._choose(ready).op.stream].popleft())

    def abandon_part(self) -> None:
        for queue in self._pending.values():
            queue.clear()
        self._stream_of.clear()
        self._done.clear()

    def mark(self) -> float:
        return time.perf_counter()

    def seconds_between(self, start: float, end: float) -> float:
        return end - start

    def synchronize(self) -> None:
        """Bodies have run when their part has ended, and nothing of the CPU's is asynchronous."""

    def device_peak_bytes(self) -> int | None:
        return None

    def reset_device_peak(self) -> None:
        """The CPU allocator keeps no peak; memory.LiveBytes does."""

    def close(self) -> None:
        self.abandon_part()

    @property
    def _origin(self) -> float:
        return self._started

    def _choose(self, ready: Sequence[Launch]) -> Launch:
        if self._copy_mode != "random":
            return min(ready, key=lambda launch: launch.op.id)
        if self._is_restless and self._random.random() < RESHUFFLE_PROBABILITY:
            self._random.shuffle(self._priorities)
        return min(ready, key=lambda launch: self._priorities.index(launch.op.stream))

    def _complete(self, op_id: int) -> None:
        """Run an op and, before it, the earlier ops of its stream and what each of them waits for; nothing else."""
        while op_id not in self._done:
            if op_id not in self._stream_of:
                raise ScheduleError(f"an op waits for op {op_id}, which was not launched before it in its part")
            head = self._pending[self._stream_of[op_id]].popleft()
            for wait in head.op.waits:
                self._complete(wait)
            self._run(head)

    def _run(self, launch: Launch) -> None:
        self._run_body(launch.op, launch.body)
        self._done.add(launch.op.id)


def _describe_deadlock(heads: Sequence[Launch], done: set[int]) -> str:
    stuck = (f"op {op.id} {op.kind} on {op.stream} waits for {sorted(set(op.waits) - done)}" for op, _ in heads)
    return f"no op of the part can start: {'; '.join(stuck)}"
