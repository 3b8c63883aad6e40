"""Streams as queues of commands, of which nothing runs before something demands it.

What runs then, and what runs in between, is drawn from a seed. Beside the queues every stream and event keeps a vector
clock: what surely is done before the next thing it is given begins, in any order that CUDA allows.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch

Clock = Counter[int]
"""By number of a stream how many of its works are surely done."""

RESHUFFLE_PROBABILITY = 0.1
BURSTS = (0, 0, 0, 1, 8)
"""Commands that run by themselves after one was queued."""
WORK_SECONDS = 1e-3
"""What every work takes; the time of a device is that of all its streams."""


class Need(Protocol):
    """What a command comes after."""

    @property
    def is_done(self) -> bool: ...

    def complete(self) -> None:
        """Makes it done, and before it what it needs; nothing else."""


class Command:
    """The work of a stream, a wait or a record; runs after the earlier ones of its stream and what it needs."""

    def __init__(self, stream: Stream, needs: Sequence[Need], body: Callable[[], None] | None) -> None:
        self._stream, self._needs, self._body = stream, needs, body
        self.is_done = False
        self.reached_at = self.own_reached_at = 0.0

    def seconds_to(self, other: Command) -> float:
        """Of one stream: what its own work between them took, so that an op's time is its own."""
        if self._stream is other._stream:
            return other.own_reached_at - self.own_reached_at
        return other.reached_at - self.reached_at

    @property
    def is_ready(self) -> bool:
        return all(need.is_done for need in self._needs)

    def complete(self) -> None:
        queue = self._stream.queue
        while not self.is_done:
            head = queue[0]
            for need in head._needs:
                if not need.is_done:
                    need.complete()
                if not need.is_done:
                    raise RuntimeError(f"{need} came back before it was done")
            if queue and queue[0] is head:
                self._stream.run_head()

    def run(self) -> None:
        self.is_done, device = True, self._stream.device
        if self._body is not None:
            device.seconds += WORK_SECONDS
            self._stream.seconds += WORK_SECONDS
            outer, device.current = device.current, self._stream
            try:
                with torch.no_grad():
                    self._body()
            finally:
                device.current = outer
        self.reached_at, self.own_reached_at = device.seconds, self._stream.seconds
        self._needs, self._body = (), None


class Device:
    """`current` is the stream that is current; at first the default one. Lazily, nothing ever runs by itself."""

    def __init__(self, seed: int = 0, *, is_lazy: bool = False, queue_depth: float = math.inf) -> None:
        self.queue_depth = queue_depth
        """Commands that a stream holds; the host waits until there is room for another."""
        self._bursts = (0,) if is_lazy else BURSTS
        self.streams: list[Stream] = []
        self.seconds = 0.0
        self.host: Clock = Counter()
        """What the host has waited for."""
        self.calls: Counter[str] = Counter()
        """Calls of CUDA by their names."""
        self.heard: Callable[[str], None] | None = None
        """Told when the host waits."""
        self.settle: Callable[[], None] = lambda: None
        """Queues what other threads have asked for; see driver.MadeUpDriver."""
        self.file_streams: frozenset[str] = frozenset()
        """Names of the plan's streams whose ops hand transfers to files."""
        self._random = random.Random(seed)
        self._order: list[Stream] = []
        self.current = Stream(self)

    def add(self, stream: Stream) -> int:
        self.streams.append(stream)
        self._order.append(stream)
        self._random.shuffle(self._order)
        return len(self.streams) - 1

    def launch(self, body: Callable[[], None]) -> None:
        """Queues work on the current stream."""
        self.current.queue_work(body)

    def synchronize(self) -> None:
        """Threads of files are the host's own: nobody waits for them here."""
        self.settle()
        self.note_wait("synchronize")
        for stream in self.streams:
            if not stream.is_file:
                stream.synchronize_once()

    def note_wait(self, name: str) -> None:
        """The host waits."""
        self.calls[name] += 1
        if self.heard is not None:
            self.heard(name)

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Around what another thread of the host asks or waits for."""
        host, calls, heard = self.host.copy(), self.calls.copy(), self.heard
        self.heard = None
        yield
        self.host, self.calls, self.heard = host, calls, heard

    def run_some(self) -> None:
        """Some of what could run, of a stream that stays preferred for a while: others starve."""
        for _ in range(self._random.choice(self._bursts)):
            ready = [stream for stream in self._order if stream.queue and stream.queue[0].is_ready]
            if not ready:
                return
            ready[0].run_head()
            if self._random.random() < RESHUFFLE_PROBABILITY:
                self._random.shuffle(self._order)


class Stream:
    """torch.cuda.Stream, or with `is_file` the queue of a thread that moves data to or from a file."""

    def __init__(self, device: Device, priority: int = 0, *, is_file: bool = False) -> None:
        self.device = device
        self.priority = priority
        self.is_file = is_file
        self.seconds = 0.0
        self.last_timed: Command | None = None
        """The last command, if it records a time."""
        self.queue: deque[Command] = deque()
        self.clock: Clock = Counter()
        self.number = device.add(self)

    def wait_event(self, event: Event) -> None:
        """Of the event's last record so far; of none where it was never recorded, as in CUDA."""
        self.device.calls["wait"] += 1
        if event.last is None:
            return
        self.clock |= event.clock
        self.queue_command([event.last])

    def wait_stream(self, other: Stream) -> None:
        self.wait_event(other.record_event())

    def record_event(self) -> Event:
        event = Event(self.device)
        event.record(self)
        return event

    def synchronize(self) -> None:
        self.device.note_wait("synchronize")
        self.synchronize_once()

    def synchronize_once(self) -> None:
        self.complete()
        self.device.host |= self.clock

    def complete(self) -> None:
        self.device.settle()
        if self.queue:
            self.queue[-1].complete()

    @property
    def cuda_stream(self) -> int:
        """Its handle."""
        return self.number

    def queue_work(self, body: Callable[[], None], needs: Sequence[Need] = ()) -> Command:
        self.clock |= self.device.host
        self.clock[self.number] += 1
        return self.queue_command(needs, body)

    def queue_command(self, needs: Sequence[Need], body: Callable[[], None] | None = None) -> Command:
        self.device.settle()
        while len(self.queue) >= self.device.queue_depth:
            self.queue[0].complete()
        command = Command(self, needs, body)
        self.last_timed = None
        self.queue.append(command)
        self.device.run_some()
        return command

    def run_head(self) -> None:
        self.queue.popleft().run()


class Event:
    """torch.cuda.Event."""

    def __init__(self, device: Device, enable_timing: bool = False) -> None:
        device.calls["create"] += 1
        self.device = device
        self.last: Command | None = None
        self.clock: Clock = Counter()
        self._has_timing = enable_timing

    def record(self, stream: Stream | None = None) -> None:
        self.device.calls["record"] += 1
        stream = self.device.current if stream is None else stream
        self.clock = stream.clock | self.device.host
        self.last = stream.queue_command([])
        stream.last_timed = self.last if self._has_timing else None

    def query(self) -> bool:
        is_reached = self.last is None or self.last.is_done
        if is_reached:
            self.device.host |= self.clock
        return is_reached

    def synchronize(self) -> None:
        self.device.note_wait("synchronize")
        if self.last is not None:
            self.last.complete()
        self.device.host |= self.clock

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds. Raises RuntimeError where CUDA does: for events that are not reached, or have no times."""
        if self.last is None or end.last is None or not (self._has_timing and end._has_timing):
            raise RuntimeError("CUDA error: invalid resource handle")
        if not (self.last.is_done and end.last.is_done):
            raise RuntimeError("CUDA error: device not ready")
        return 1000 * self.last.seconds_to(end.last)
