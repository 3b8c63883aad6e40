"""Time of ops by kind, always; of single ops where they are asked for; and of what lies between them.

Nothing here knows the plan: the run loops say which kind of work ran from when to when.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

MAX_RECORDS = 40_000
"""Single ops kept of a step; with the records made of them about 32 MiB."""


class Clock(Protocol):
    """What a recorder needs of a Runtime. A mark is a point in the time of the current stream."""

    def mark(self) -> Any: ...

    def seconds_between(self, start: Any, end: Any) -> float:
        """Both marks must have been reached, see `synchronize` and `await_mark`."""

    def synchronize(self) -> None: ...

    def remark(self, mark: Any, stream: Any = None) -> Any:
        """A mark of now, which may be the given one used anew. `stream`: the current one, for who knows it."""

    def is_reached(self, mark: Any) -> bool: ...

    def await_mark(self, mark: Any) -> None: ...


class Source(Protocol):
    """The ops of a section, as far as records name them. Kinds are places in the recorder's kinds."""

    @property
    def name(self) -> str: ...

    @property
    def kinds(self) -> Sequence[int]: ...

    @property
    def streams(self) -> Sequence[int]: ...

    def read_bytes(self, op: int) -> int: ...


class Sink(Protocol):
    """Where single ops of a traced step go, as soon as they are known; see trace.TraceWriter."""

    def write(self, log: CallLog) -> None: ...

    def write_span(self, kind: str, start: float, end: float) -> None: ...


@dataclass(frozen=True, slots=True)
class OpTime:
    """One executed op; seconds since the start of its step."""

    section: str
    layer: int
    op: int
    kind: str
    stream: int
    start: float
    duration: float
    bytes: int


@dataclass(frozen=True, slots=True)
class StepTimes:
    """`by_kind` holds {count, seconds} and counts nested time once; `idle_seconds` is the sum of the gaps in which no
    timed work ran, found from the intervals themselves and not by subtraction. Where ops were not timed, these are
    empty, and 0."""

    seconds: float
    ops_timed: bool
    by_kind: dict[str, dict[str, Any]]
    idle_seconds: float
    ops: tuple[OpTime, ...]


class CallLog:
    """Single ops of one call: op numbers, and seconds since the step's start."""

    __slots__ = ("ends", "layer", "ops", "source", "starts")

    def __init__(self, source: Source, layer: int) -> None:
        self.source = source
        self.layer = layer
        self.ops = array("q")
        self.starts = array("d")
        self.ends = array("d")

    def add(self, op: int, start: float, end: float) -> None:
        self.ops.append(op)
        self.starts.append(start)
        self.ends.append(end)

    def clear(self) -> None:
        del self.ops[:], self.starts[:], self.ends[:]


@dataclass(slots=True)
class Span:
    """A stretch of external work, of a kind."""

    kind: int
    start: Any
    inner: float = 0.0
    """Seconds of the spans inside; of those whose marks are not reached yet, the spans themselves are in `nested`."""
    end: Any = None
    nested: list[Span] = field(default_factory=list)


class Recorder:
    """Totals by kind, on a clock whose marks are seconds of the host. `seconds` and `counts` are written by run loops.

    `record_layers`: single ops of one layer in that many are kept; 0: none. `kinds` are the names of the totals.
    """

    def __init__(self, clock: Clock, kinds: Sequence[str], record_layers: int = 0) -> None:
        self.kinds = tuple(kinds)
        self.seconds = [0.0] * len(self.kinds)
        self.counts = [0] * len(self.kinds)
        self.origin: Any = clock.mark()
        self._clock = clock
        self._places = {name: place for place, name in enumerate(self.kinds)}
        self._record_layers = record_layers
        self._num_recorded = 0
        self._logs: list[CallLog] = []
        self._sink: Sink | None = None
        self._open: list[Span] = []
        self._covered = 0.0
        self._idle = 0.0
        self.times_ops = True
        """Whether anything but the step has a time now."""

    def begin_step(self, sink: Sink | None = None, times_ops: bool = True) -> None:
        """Drop what was recorded before and start the step's clock. With a sink every op of the step goes there.

        Without `times_ops`, what costs time to find may be left out: here nothing does.
        """
        self.seconds[:] = [0.0] * len(self.kinds)
        self.counts[:] = [0] * len(self.kinds)
        self._logs.clear()
        self._open.clear()
        self._num_recorded = 0
        self._covered = self._idle = 0.0
        self._sink = sink
        self._clock.synchronize()
        self.origin = self._clock.mark()

    def end_step(self) -> StepTimes:
        end = self._clock.mark()
        self._clock.synchronize()
        self._settle()
        self.flush()
        seconds = self._clock.seconds_between(self.origin, end)
        self._sink = None
        if not self.times_ops:
            return StepTimes(seconds, False, {}, 0.0, ())
        idle = self._idle + max(0.0, seconds - self._covered)
        return StepTimes(seconds, True, self._by_kind(), idle, tuple(self._op_times()))

    def _settle(self) -> None:
        """Every mark of the step has been reached."""

    def log(self, source: Source, layer: int | None, num_ops: int) -> CallLog | None:
        """Where to note the single ops of a call, None where nobody asked for them."""
        if self._sink is None:
            n = self._record_layers
            if (
                not self.times_ops
                or n == 0
                or (layer is not None and layer % n)
                or self._num_recorded + num_ops > MAX_RECORDS
            ):
                return None
            self._num_recorded += num_ops
        log = CallLog(source, layer or 0)
        self._logs.append(log)
        return log

    def flush(self) -> None:
        """Hand over to the sink what is known by now; to be called now and then in a traced step."""
        if self._sink is None:
            return
        for log in self._logs:
            self._sink.write(log)
            log.clear()
        self._logs.clear()

    def cover(self, start: float, end: float) -> None:
        """Something timed ran from `start` to `end`, marks of the host. Intervals come in the order of their starts."""
        start -= self.origin
        self._idle += max(0.0, start - self._covered)
        self._covered = max(self._covered, end - self.origin)

    def add(self, kind: int, start: float, end: float) -> None:
        """One run of a kind, marks of the host."""
        self.counts[kind] += 1
        self.seconds[kind] += end - start
        self.cover(start, end)

    def count(self, kind_counts: Sequence[tuple[int, int]]) -> None:
        """A call has run with so many ops of each kind."""
        counts = self.counts
        for kind, number in kind_counts:
            counts[kind] += number

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Time external work, such as reduce or optimizerStep, under its kind. Nested time counts once."""
        if not self.times_ops:
            yield
            return
        span = Span(self._places[kind], self._clock.mark())
        self._open.append(span)
        try:
            yield
        finally:
            self._open.remove(span)
            span.end = self._clock.mark()
            self.close_span(span)

    def close_span(self, span: Span) -> None:
        """A span has ended, and is no longer among the open ones."""
        duration = self._clock.seconds_between(span.start, span.end)
        self.counts[span.kind] += 1
        self.seconds[span.kind] += max(0.0, duration - span.inner)
        if self._open:
            self._open[-1].inner += duration
        else:
            self.cover(span.start, span.end)
        if self._sink is not None:
            start = self._clock.seconds_between(self.origin, span.start)
            self._sink.write_span(self.kinds[span.kind], start, start + duration)

    def _by_kind(self) -> dict[str, dict[str, Any]]:
        rows = zip(self.kinds, self.counts, self.seconds, strict=True)
        return {kind: {"count": count, "seconds": seconds} for kind, count, seconds in rows if count}

    def _op_times(self) -> Iterator[OpTime]:
        for log in self._logs:
            source = log.source
            for op, start, end in zip(log.ops, log.starts, log.ends, strict=True):
                kind = self.kinds[source.kinds[op]]
                stream, size = source.streams[op], source.read_bytes(op)
                yield OpTime(source.name, log.layer, op, kind, stream, start, end - start, size)
