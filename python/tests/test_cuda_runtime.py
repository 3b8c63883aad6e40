"""The CUDA runtime on made-up streams and events: what it orders is what the plan asks for, and nothing is joined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fpdt.devices import cuda
from fpdt.devices.cuda import CudaRuntime
from fpdt.measure.host_rates import LOOP_OPS, host_rates
from fpdt.measure.probe import Timer
from fpdt.measure.probe_run import KernelTimes
from fpdt.measure.rates import link_rates
from fpdt.models.interpreter import LinkedCode
from fpdt.plan import Plan
from fpdt.run.arena import mapped_arena
from fpdt.run.context import OpContext
from fpdt.run.executor import Executor
from fpdt.testing.fake_cuda.watch import watch
from tests.device_plans import MASKED, disk_plan, program_plan
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
    def __init__(self, enable_timing: bool = False) -> None:
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
    monkeypatch.setattr(cuda, "PageLocks", lambda arenas: SimpleNamespace(release=lambda: None))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Device.current)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: setattr(Device, "current", stream))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    yield


def runtime_for(plan: Plan, files: dict[str, Any] | None = None) -> CudaRuntime:
    arenas = {pool.name: mapped_arena(pool.name, pool.bytes) for pool in plan.header.pools if pool.kind != "file"}
    in_file = frozenset(STREAMS.index(name) for name in ("read", "write")) if files else frozenset()
    return CudaRuntime(arenas, files or {}, plan.streams, in_file)


def note(ctx: OpContext, *views: Any) -> None:
    stream = Device.current
    assert stream.name == ctx.op.stream
    stream.seen[stream.name] += 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("plan", [program_plan(), program_plan(MASKED), disk_plan()], ids=["waits", "masks", "a file"])
def test_every_op_comes_after_what_it_waits_for_and_after_no_more(plan: Plan, seed: int) -> None:
    assert watch(plan, seed) > 50


def test_side_streams_are_joined_at_the_end_of_the_step_only() -> None:
    plan = program_plan([(["h", "d"], {}), (["c"], {})])
    runtime = runtime_for(plan)
    handlers = {**dict.fromkeys(("zero", "copy"), note), "emitGrads": nothing}
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
    assert [rates["h2dBytes"], rates["d2hBytes"]] == pytest.approx([4 * 4096 / (2 * 4 + 1) * 1000] * 2)
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
