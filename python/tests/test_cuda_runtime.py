"""The CUDA runtime on made-up streams and events: what it orders is what the plan asks for, and nothing is joined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fpdt.devices import cuda
from fpdt.devices.cuda import CudaRuntime
from fpdt.measure.device_timing import EventRecorder
from fpdt.measure.host_rates import LOOP_OPS, host_rates
from fpdt.measure.probe import Timer
from fpdt.measure.probe_run import KernelTimes
from fpdt.measure.rates import link_rates
from fpdt.models.interpreter import LinkedCode
from fpdt.plan import Plan
from fpdt.run.arena import mapped_arena
from fpdt.run.context import OpContext
from fpdt.run.executor import Executor
from tests.device_plans import MASKED, PROGRAM, disk_plan, program_plan
from tests.executor_runs import NoWeights, add_one, bound, copy_views, nothing, run, run_turns
from tests.plan_builder import STREAMS

Seen = Counter[str]
"""By name of a stream how many of its ops are surely done."""


class FakeStream:
    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: Seen = Counter()

    def wait_event(self, event: FakeEvent) -> None:
        self.seen |= event.seen

    def record_event(self) -> FakeEvent:
        event = FakeEvent()
        event.record(self)
        return event

    def wait_stream(self, other: FakeStream) -> None:
        self.seen |= other.seen


class FakeEvent:
    num_made = 0

    def __init__(self, enable_timing: bool = False) -> None:
        FakeEvent.num_made += 1
        self.seen: Seen = Counter()
        self.at = 0.0

    def record(self, stream: FakeStream | None = None) -> None:
        stream = Device.current if stream is None else stream
        self.seen = Counter(stream.seen)
        self.at = Device.now = Device.now + 1.0

    def query(self) -> bool:
        return True

    def synchronize(self) -> None: ...

    def elapsed_time(self, other: FakeEvent) -> float:
        return other.at - self.at


class Device:
    now = 0.0
    current = FakeStream("compute")


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Device.current = FakeStream("compute")
    names = iter(STREAMS[1:])
    monkeypatch.setattr(cuda, "Stream", lambda device, priority: FakeStream(next(names)))
    monkeypatch.setattr(cuda, "Event", FakeEvent)
    monkeypatch.setattr(cuda, "_page_lock", lambda arena: None)
    monkeypatch.setattr(cuda, "_page_unlock", lambda arena: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Device.current)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: setattr(Device, "current", stream))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    yield


def runtime_for(plan: Plan, files: dict[str, Any] | None = None) -> CudaRuntime:
    arenas = {pool.name: mapped_arena(pool.name, pool.bytes) for pool in plan.header.pools if pool.kind != "file"}
    in_file = frozenset(STREAMS.index(name) for name in ("read", "write")) if files else frozenset()
    return CudaRuntime(arenas, files or {}, plan.streams, in_file)


class Ordered:
    """Notes what every op could rely on when it was launched."""

    def __init__(self) -> None:
        self.launched: list[tuple[str, int, str, Seen]] = []
        self.numbers: dict[tuple[str, int], tuple[str, int]] = {}

    def note(self, ctx: OpContext, *views: Any) -> None:
        stream, key = Device.current, (ctx.op.section.name, ctx.op.id)
        assert stream.name == ctx.op.stream
        self.launched.append((*key, stream.name, Counter(stream.seen)))
        stream.seen[stream.name] += 1
        self.numbers[key] = stream.name, stream.seen[stream.name]


@pytest.mark.parametrize("calls", [[(PROGRAM, {})], MASKED], ids=["waits", "masks"])
def test_every_op_starts_after_what_it_waits_for(calls: Any) -> None:
    plan, ordered = program_plan(calls), Ordered()
    runtime = runtime_for(plan)
    handlers = {**dict.fromkeys(("zero", "copy", "toHeads"), ordered.note), "emitGrads": nothing}
    executor = Executor(plan, runtime, handlers, runtime.make_recorder(plan.kind_names))
    for _ in range(2):
        ordered.launched.clear()
        streams: list[Any] = runtime._streams
        before = {name: stream.seen[name] for name, stream in zip(STREAMS, streams, strict=True)}
        run(executor, plan)
        by_call = {call.section: call.waits for turn in plan.turns for call in turn.calls}
        earlier: Seen = Counter(before)
        last = ""
        for section, op_id, stream, seen in ordered.launched:
            if section != last:
                last, entry = section, Counter(earlier)
            for wait in plan.sections[section].waits(op_id):
                name, number = ordered.numbers[section, wait]
                assert seen[name] >= number, (section, op_id, wait)
            mask = by_call[section][STREAMS.index(stream)]
            for other, name in enumerate(STREAMS):
                if mask >> other & 1:
                    assert seen[name] >= entry[name], (section, op_id, name)
            earlier[stream] += 1
    assert Device.current.name == "compute"


def test_events_are_made_once() -> None:
    plan, ordered = program_plan(MASKED), Ordered()
    runtime = runtime_for(plan)
    handlers = {**dict.fromkeys(("zero", "copy", "toHeads"), ordered.note), "emitGrads": nothing}
    recorder = runtime.make_recorder(plan.kind_names)
    assert isinstance(recorder, EventRecorder)
    executor = Executor(plan, runtime, handlers, recorder)
    counts = []
    for _ in range(3):
        recorder.begin_step()
        run(executor, plan)
        times = recorder.end_step()
        counts.append(FakeEvent.num_made)
    assert counts[2] - counts[1] == 2, "the marks of the step alone"
    num_ops = sum(len(program) for program, _ in MASKED)
    assert sum(item["count"] for kind, item in times.by_kind.items() if kind != "emitGrads") == num_ops


def test_side_streams_are_joined_at_the_end_of_the_step_only() -> None:
    plan, ordered = program_plan([(["h", "d"], {}), (["c"], {})]), Ordered()
    runtime = runtime_for(plan)
    handlers = {**dict.fromkeys(("zero", "copy"), ordered.note), "emitGrads": nothing}
    executor = Executor(plan, runtime, handlers, runtime.make_recorder(plan.kind_names))
    executor.begin_micro_step()
    for turn in plan.turns[:-1]:
        executor.run_turn(turn.module, turn.direction, turn.layer, bound())
    assert Device.current.seen["h2d"] == 0
    executor.finish(bound())
    assert Device.current.seen["h2d"] == Device.current.seen["d2h"] == 1


def test_an_error_gives_the_callers_stream_back() -> None:
    plan = program_plan([(["h"], {})])

    def fail(ctx: OpContext, *views: Tensor) -> None:
        raise ValueError

    runtime = runtime_for(plan)
    executor = Executor(plan, runtime, {"copy": fail, "emitGrads": nothing}, runtime.make_recorder(plan.kind_names))
    with pytest.raises(ValueError) as caught:
        run_turns(executor, plan.turns, bound(NoWeights()))
    assert caught.value.__notes__ == ["in op 0 copy of section0: host[0:1) hbm[0:1)"]
    assert Device.current.name == "compute"


def test_files_are_read_and_written_by_their_own_threads(tmp_path: Path) -> None:
    from fpdt.devices.file_pool import FilePool

    plan = disk_plan()
    size = next(pool.bytes for pool in plan.header.pools if pool.name == "disk")
    runtime = runtime_for(plan, {"disk": FilePool(tmp_path, size, "disk")})
    recorder = runtime.make_recorder(plan.kind_names)
    executor = Executor(plan, runtime, {"copy": copy_views, "cast": add_one, "emitGrads": nothing}, recorder)
    try:
        for chunk in range(4):
            executor.buffer("x", chunk).fill_(10 * chunk)
        run(executor, plan)
        assert [float(executor.buffer("y", i)[699]) for i in range(8)] == [1, 11, 21, 31, 2, 12, 22, 32]
    finally:
        runtime.close()


def test_calibration_times_links_and_the_host_through_streams_and_events(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []
    pools = {name: mapped_arena(name, 1 << 16) for name in ("hbm", "host")}
    runtime = CudaRuntime(pools, {}, tuple(STREAMS), frozenset())
    runtime.device = torch.device("cpu")
    copy = runtime.copy

    def noted(*args: Any) -> None:
        copied.append(Device.current.name)
        copy(*args)

    monkeypatch.setattr(runtime, "copy", noted)
    timer = Timer(runtime, seconds=0.01, num_measurements=4)
    rates = link_rates(runtime, timer, 4096)
    assert {*copied} == {"h2d", "d2h"}
    assert Device.current.name == "compute"
    # Each event that is recorded takes a millisecond: two around every copy, one to end with.
    assert rates["h2dBytes"] == rates["d2hBytes"] == pytest.approx(4 * 4096 / (2 * 4 + 1) * 1000)
    assert rates["duplexBytes"] == pytest.approx(8 * 4096 / (2 * 8 + 1) * 1000)
    # A made-up device is never busy.
    monkeypatch.setattr("fpdt.measure.host_rates.MAX_SIZE", 512)
    host = host_rates(runtime, timer)
    assert host.keys() == {"hostSecondsPerOp", "hostSecondsPerKernel", "launchSeconds"}
    # The device's clock and not the host's.
    assert host["launchSeconds"] == pytest.approx(1e-3 / LOOP_OPS)
    assert host["hostSecondsPerKernel"] > 0


def test_kernels_are_timed_by_marks_of_the_device() -> None:
    runtime = runtime_for(program_plan())
    times = KernelTimes(runtime)
    code = LinkedCode([(lambda env: None, ()), (lambda env: env.update(y=env["@x"]), ("y",))])
    times.watch_code("code/pre/0", code)
    for rows in (2, 2, 3):
        code.run({"@x": torch.zeros(rows, 4)})
    taken = times.take()
    assert taken["code/pre/0/1/2/count"] == 2 and taken["code/pre/0/1/2/seconds"] == pytest.approx(2e-3)
    assert taken["code/pre/0/0/3/count"] == 1 and taken["code/pre/0/0/3/seconds"] == pytest.approx(1e-3)
    assert times.take() == {}
