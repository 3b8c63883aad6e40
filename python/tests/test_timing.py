"""Totals, idle time and traces, on clocks that read what the test says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fpdt.measure.device_timing import EventRecorder
from fpdt.measure.timing import MAX_RECORDS, Recorder, StepTimes
from fpdt.measure.trace import TraceWriter

KINDS = ("attn", "gather", "reduce", "optimizerStep")


class ScriptedClock:
    """A host clock that reads the given times, one after the other."""

    def __init__(self, *times: float) -> None:
        self._times = iter(times)

    def mark(self) -> float:
        return next(self._times)

    def remark(self, mark: float | None, stream: Any = None) -> float:
        return next(self._times)

    def is_reached(self, mark: float) -> bool:
        return True

    def await_mark(self, mark: float) -> None: ...

    def seconds_between(self, start: float, end: float) -> float:
        return end - start

    def synchronize(self) -> None: ...


@dataclass
class Event:
    at: float


class DeviceClock(ScriptedClock):
    """Events that are used again, and reached when the test lets time pass."""

    def __init__(self, *times: float) -> None:
        super().__init__(*times)
        self.now = 0.0
        self.num_made = 0
        self.awaited: list[float] = []

    def mark(self) -> Any:
        return self.remark(None)

    def remark(self, mark: Any, stream: Any = None) -> Any:
        if mark is None:
            self.num_made += 1
            mark = Event(0.0)
        mark.at = next(self._times)
        return mark

    def is_reached(self, mark: Any) -> bool:
        return bool(mark.at <= self.now)

    def await_mark(self, mark: Any) -> None:
        self.awaited.append(mark.at)
        self.now = max(self.now, mark.at)

    def seconds_between(self, start: Any, end: Any) -> float:
        return float(end.at - start.at)

    def synchronize(self) -> None:
        self.now = float("inf")


@dataclass
class Ops:
    name: str = "layerForward"
    kinds: tuple[int, ...] = (0, 0, 0)
    streams: tuple[int, ...] = (0, 0, 0)

    def read_bytes(self, op: int) -> int:
        return 8 * op


def test_nested_time_counts_once_and_overlap_is_not_idle() -> None:
    recorder = Recorder(ScriptedClock(0, 10, 11, 12, 14, 15, 17, 18, 20), KINDS)
    recorder.begin_step()
    with recorder.timed("optimizerStep"), recorder.timed("reduce"):
        pass
    with recorder.timed("gather"):
        pass
    times = recorder.end_step()
    seconds = {kind: item["seconds"] for kind, item in times.by_kind.items()}
    assert seconds == {"reduce": 2, "optimizerStep": 2, "gather": 1}
    assert (times.seconds, times.idle_seconds) == (10, 1 + 2 + 2)


def test_device_times_are_those_of_events_that_are_used_again() -> None:
    """Steps of [start, end): attn [2, 4), attn [3, 6) on another stream, optimizerStep [7, 12) around reduce [8, 9)."""
    clock = DeviceClock(0, 0, 2, 4, 3, 6, 7, 8, 9, 12, 13, *(20, 21, 22, 25))
    recorder = EventRecorder(clock, KINDS)
    recorder.begin_step()
    for op in range(2):
        recorder.close(recorder.open(0, op, None, None), None)
    recorder.count([(0, 2)])
    with recorder.timed("optimizerStep"), recorder.timed("reduce"):
        pass
    times = recorder.end_step()
    assert times.by_kind == {
        "attn": {"count": 2, "seconds": 5.0},
        "reduce": {"count": 1, "seconds": 1.0},
        "optimizerStep": {"count": 1, "seconds": 4.0},
    }
    assert times.idle_seconds == 2 + 1 + 1
    made = clock.num_made
    recorder.begin_step()
    recorder.close(recorder.open(0, 0, None, None), None)
    assert recorder.end_step().by_kind == {}
    assert clock.num_made == made + 2, "only the marks of the step are new"


def test_a_device_times_no_op_where_nobody_asks() -> None:
    clock = DeviceClock(0, 0, 7)
    recorder = EventRecorder(clock, KINDS, record_layers=1)
    recorder.begin_step(times_ops=False)
    assert not recorder.times_ops and recorder.log(Ops(), 0, 1) is None
    recorder.count([(0, 2)])
    with recorder.timed("optimizerStep"), recorder.timed("reduce"):
        pass
    assert clock.num_made == 2
    assert recorder.end_step() == StepTimes(7.0, ops_timed=False, by_kind={}, idle_seconds=0.0, ops=())


def test_a_traced_step_is_timed(tmp_path: Path) -> None:
    recorder = EventRecorder(DeviceClock(0, 0, 1), KINDS)
    with TraceWriter(tmp_path, 0, 0, ("compute",), KINDS) as sink:
        recorder.begin_step(sink, times_ops=False)
        assert recorder.times_ops


def test_a_host_far_ahead_of_its_device_waits_for_the_oldest_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fpdt.measure.device_timing.MAX_PAIRS", 4)
    clock = DeviceClock(0, 0, *range(1, 100))
    recorder = EventRecorder(clock, KINDS)
    recorder.begin_step()
    clock.now = 0.0
    for op in range(20):
        recorder.close(recorder.open(0, op, None, None), None)
    assert clock.awaited != []
    assert clock.num_made <= 2 + 2 * 4
    assert recorder.end_step().by_kind == {}


def test_records_of_a_step_are_bounded() -> None:
    recorder = Recorder(ScriptedClock(0, 0, 0, 1), KINDS, record_layers=1)
    recorder.begin_step()
    assert recorder.log(Ops(), 0, MAX_RECORDS - 1) is not None
    assert recorder.log(Ops(), 1, 2) is None
    assert recorder.log(Ops(), 1, 1) is not None


def test_a_trace_holds_every_op_of_its_step(tmp_path: Path) -> None:
    recorder = Recorder(ScriptedClock(0, 100, 104, 105, 110, 0, 0), KINDS)
    with TraceWriter(tmp_path, 3, 1, ["compute", "comm"], KINDS) as sink:
        recorder.begin_step(sink)
        log = recorder.log(Ops(), 7, 3)
        assert log is not None
        log.add(0, 0.5, 0.75)
        recorder.flush()
        log = recorder.log(Ops(), None, 3)
        assert log is not None and len(log.ops) == 0
        log.add(2, 1.0, 1.5)
        with recorder.timed("gather"):
            pass
        times = recorder.end_step()
    assert times.ops == ()
    events = json.loads((tmp_path / "trace-step000003-rank1.json").read_text())["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert names == {0: "compute", 1: "comm", 2: "zero"}
    spans = {(event["name"], event["tid"], event["ts"], event["dur"]) for event in events if event["ph"] == "X"}
    assert spans == {
        ("attn", 0, 500000.0, 250000.0),
        ("attn", 0, 1000000.0, 500000.0),
        ("gather", 2, 4000000.0, 1000000.0),
    }
    assert {event["args"]["layer"] for event in events if event.get("cat") == "layerForward"} == {0, 7}
    assert all(event["pid"] == 1 for event in events)
