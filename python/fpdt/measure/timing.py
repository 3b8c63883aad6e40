"""Time of every op, on the device's own clock, and of what lies between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol


class Clock(Protocol):
    """What the recorder needs of a Runtime."""

    def mark(self) -> Any: ...

    def seconds_between(self, start: Any, end: Any) -> float: ...

    def synchronize(self) -> None: ...


@dataclass(frozen=True, slots=True)
class OpTime:
    """One executed op; seconds since the start of its step. `duration` includes ops nested in it, if any."""

    section: str
    layer: int
    op: int
    kind: str
    stream: str
    start: float
    duration: float
    bytes: int


@dataclass(frozen=True, slots=True)
class StepTimes:
    """`by_kind` holds {count, seconds} and counts nested time once; `idle_seconds` is the sum of the gaps in which no
    timed work ran, found from the intervals themselves and not by subtraction."""

    seconds: float
    by_kind: dict[str, dict[str, Any]]
    idle_seconds: float
    ops: tuple[OpTime, ...]


@dataclass(slots=True)
class _Span:
    kind: str
    start: Any
    end: Any = None
    section: str | None = None
    layer: int = 0
    op: int = 0
    stream: str = "compute"
    bytes: int = 0
    inner: list[_Span] = field(default_factory=list)


class Recorder:
    """Collects spans during a step; marks are turned into seconds once, when the step has ended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spans: list[_Span] = []
        self._open: list[_Span] = []
        self._origin: Any = clock.mark()

    def begin_step(self) -> None:
        """Drop what was recorded before and start the step's clock."""
        self._spans.clear()
        self._open.clear()
        self._clock.synchronize()
        self._origin = self._clock.mark()

    def end_step(self) -> StepTimes:
        end = self._clock.mark()
        self._clock.synchronize()
        seconds = self._since_start(end)
        intervals = [(self._since_start(span.start), self._since_start(span.end)) for span in self._spans]
        timed = [
            OpTime(span.section, span.layer, span.op, span.kind, span.stream, start, stop - start, span.bytes)
            for span, (start, stop) in zip(self._spans, intervals, strict=True)
            if span.section is not None
        ]
        return StepTimes(seconds, self._by_kind(), _gaps(intervals, seconds), tuple(timed))

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Time external work, such as reduce, optimizerStep or loadBatch, under its kind."""
        with self._span(_Span(kind, self._clock.mark())):
            yield

    @contextmanager
    def op(self, kind: str, section: str, layer: int, op: int, stream: str, num_bytes: int) -> Iterator[None]:
        """Time one op of the plan; to be entered where it runs, with its stream current."""
        span = _Span(kind, self._clock.mark(), None, section, layer, op, stream, num_bytes)
        with self._span(span):
            yield

    @contextmanager
    def _span(self, span: _Span) -> Iterator[None]:
        if self._open:
            self._open[-1].inner.append(span)
        self._open.append(span)
        try:
            yield
        finally:
            self._open.remove(span)
            span.end = self._clock.mark()
            self._spans.append(span)

    def _by_kind(self) -> dict[str, dict[str, Any]]:
        kinds: dict[str, dict[str, Any]] = {}
        for span in self._spans:
            total = kinds.setdefault(span.kind, {"count": 0, "seconds": 0.0})
            own = self._duration(span) - sum(map(self._duration, span.inner))
            total["count"] += 1
            total["seconds"] += max(0.0, own)
        return kinds

    def _duration(self, span: _Span) -> float:
        return self._clock.seconds_between(span.start, span.end)

    def _since_start(self, mark: Any) -> float:
        return self._clock.seconds_between(self._origin, mark)


def _gaps(intervals: Sequence[tuple[float, float]], end: float) -> float:
    """Seconds of [0, end] that no interval covers."""
    covered, idle = 0.0, 0.0
    for start, stop in sorted(intervals):
        idle += max(0.0, min(start, end) - covered)
        covered = max(covered, stop)
    return idle + max(0.0, end - covered)
