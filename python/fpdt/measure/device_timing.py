"""Time on a device whose marks are events: taken from a pool, read when they have been reached, used again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fpdt.measure.timing import CallLog, Clock, Recorder, Sink, Span

MAX_PAIRS = 16_384
"""Pairs of events in flight; a host that is further ahead of its device waits for the oldest."""


@dataclass(slots=True)
class Pair:
    """Two marks around one op, reached some time later."""

    start: Any
    end: Any
    kind: int = 0
    op: int = 0
    log: CallLog | None = None


class EventRecorder(Recorder):
    """The same on a device: marks are events, taken from a pool and read when they have been reached."""

    def __init__(self, clock: Clock, kinds: Sequence[str], record_layers: int = 0) -> None:
        super().__init__(clock, kinds, record_layers)
        self._free: list[Pair] = []
        self._pending: deque[Pair] = deque()
        self._num_pairs = 0

    def open(self, kind: int, op: int, log: CallLog | None, stream: Any) -> Pair:
        """To be called with the op's stream, which is current, before it; `close` after it."""
        pair = self._free.pop() if self._free else self._take()
        pair.kind, pair.op, pair.log = kind, op, log
        pair.start = self._clock.remark(pair.start, stream)
        return pair

    def close(self, pair: Pair, stream: Any) -> None:
        pair.end = self._clock.remark(pair.end, stream)
        self._pending.append(pair)

    def begin_step(self, sink: Sink | None = None, times_ops: bool = True) -> None:
        """Two marks an op more than double the calls that the host makes: where nobody asks, ops have none."""
        super().begin_step(sink)
        self.times_ops = times_ops or sink is not None
        self._free.extend(self._pending)
        self._pending.clear()

    def flush(self) -> None:
        self._harvest(everything=False)
        super().flush()

    def _settle(self) -> None:
        self._harvest(everything=True)

    def close_span(self, span: Span) -> None:
        """Spans of a device are few, and ordered with the ops: they go the same way."""
        self.counts[span.kind] += 1
        if self._open:
            self._open[-1].nested.append(span)
            return
        for one, sign in _walk(span):
            self._pending.append(_SpanPair(one.start, one.end, one.kind, sign))

    def _take(self) -> Pair:
        """One that is free again, or a new one."""
        self._harvest(everything=False)
        if not self._free and self._num_pairs < MAX_PAIRS:
            self._num_pairs += 1
            return Pair(None, None)
        if not self._free:
            self._clock.await_mark(self._pending[len(self._pending) // 2].end)
            self._harvest(everything=False)
        return self._free.pop() if self._free else Pair(None, None)

    def _harvest(self, everything: bool) -> None:
        """Read the pairs that have been reached, oldest first."""
        if self._open:
            return
        pending, free, seconds, origin = self._pending, self._free, self.seconds, self.origin
        is_reached, between = self._clock.is_reached, self._clock.seconds_between
        reached: list[tuple[float, float]] = []
        while pending and (everything or is_reached(pending[0].end)):
            pair = pending.popleft()
            start, duration = between(origin, pair.start), between(pair.start, pair.end)
            if type(pair) is _SpanPair:
                self._add_span(pair, start, duration, reached)
                continue
            seconds[pair.kind] += duration
            reached.append((start, start + duration))
            if pair.log is not None:
                pair.log.add(pair.op, start, start + duration)
                pair.log = None
            free.append(pair)
        reached.sort()
        for start, end in reached:
            self._idle += max(0.0, start - self._covered)
            self._covered = max(self._covered, end)

    def _add_span(self, pair: _SpanPair, start: float, duration: float, reached: list[tuple[float, float]]) -> None:
        self.seconds[pair.kind] += pair.sign * duration
        if pair.sign < 0:
            return
        reached.append((start, start + duration))
        if self._sink is not None:
            self._sink.write_span(self.kinds[pair.kind], start, start + duration)


class _SpanPair(Pair):
    """A span, or with sign -1 the part of its parent's time that is its own."""

    def __init__(self, start: Any, end: Any, kind: int, sign: int) -> None:
        super().__init__(start, end, kind)
        self.sign = sign


def _walk(span: Span) -> Iterator[tuple[Span, int]]:
    """The span and those inside it, each once with its own kind, and once more to be taken off its parent's."""
    yield span, 1
    for inner in span.nested:
        yield from _walk(inner)
        yield Span(span.kind, inner.start, end=inner.end), -1
