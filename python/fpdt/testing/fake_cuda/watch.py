"""Runs a plan with handlers that do nothing on a made-up device, under the eyes of the oracle."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from fpdt.devices import cuda
from fpdt.measure.timing import Recorder, StepTimes
from fpdt.plan import OP_KINDS, Plan
from fpdt.run.context import Bound
from fpdt.run.executor import Executor
from fpdt.run.runtime import Runtime
from fpdt.testing.fake_cuda.costs import check_costs
from fpdt.testing.fake_cuda.device import WORK_SECONDS, Device, Stream
from fpdt.testing.fake_cuda.files import made_up_files
from fpdt.testing.fake_cuda.install import made_up, make_runtime
from fpdt.testing.fake_cuda.oracle import Oracle, OrderError, PlannedFailure
from fpdt.testing.fake_cuda.pinned import PinnedRanges

__all__ = ["OrderError", "watch"]


def watch(plan: Plan, seed: int, module: ModuleType = cuda) -> int:
    """The number of works, of every one of which the oracle approves. Raises OrderError. `module` has the runtime."""
    device = Device(seed)
    ranges = PinnedRanges(before_release=lambda: oracle.check_idle("giving back page-locked memory"))
    files: Any = made_up_files(plan.header.pools, device)
    with made_up(device, module, ranges):
        runtime = make_runtime(plan, device, files, module=module)
        oracle = Oracle(plan, runtime, device)
        recorder = runtime.make_recorder(plan.kind_names, 1)
        run = StepsOf(plan, runtime, device, oracle, recorder)
        run.all()
        oracle.work_on_all_streams()
        runtime.close()
    if ranges.ranges or not all(file.is_closed for file in files.values()):
        raise OrderError("a closed runtime holds on to page-locked memory or files")
    return oracle.num_works


class StepsOf:
    """Of a plan, with handlers of the oracle's."""

    def __init__(self, plan: Plan, runtime: Runtime, device: Device, oracle: Oracle, recorder: Recorder) -> None:
        self._plan, self._runtime, self._device = plan, runtime, device
        self._oracle, self._recorder = oracle, recorder
        self._executor = Executor(plan, runtime, oracle.handlers(OP_KINDS), recorder)
        anything: Any = None
        step = lambda: oracle.check_joined("the optimizer's step")  # noqa: E731
        self._bound = Bound([anything] * plan.num_layers, anything, _WholeWeights(), step)

    def all(self) -> None:
        """Steps with their times, turns that fail in the middle of one, and a step whose caller has another stream."""
        self._step(times_ops=True)
        works = self._oracle.num_works
        for times_ops in (False, True):
            before = self._device.calls.copy()
            self._step(times_ops)
            check_costs(self._plan, self._device.calls - before, times_ops)
        for share in (0.2, 0.5, 0.9):
            self._oracle.fail_at = self._oracle.num_works + int(share * works) + 1
            self._failing_micro_step()
        self._oracle.fail_at = None
        self._oracle.work_on_all_streams()
        self._device.current = Stream(self._device)
        self._micro_step()
        self._oracle.work_on_all_streams()
        self._runtime.synchronize()
        self._oracle.check_waited("synchronize")

    def _step(self, times_ops: bool) -> None:
        self._oracle.timed.clear()
        self._oracle.times_ops = times_ops
        self._recorder.begin_step(times_ops=times_ops)
        self._micro_step()
        times = self._recorder.end_step()
        if times.ops_timed != times_ops:
            raise OrderError(f"times of ops: {times.ops_timed}, asked for: {times_ops}")
        if times_ops:
            self._check_times(times)

    def _check_times(self, times: StepTimes) -> None:
        for kind, count in self._oracle.timed.items():
            found = times.by_kind[kind]
            if found["count"] < count or not math.isclose(found["seconds"], count * WORK_SECONDS):
                raise OrderError(f"{count} ops of kind {kind} took {found}, {WORK_SECONDS} each")
        if len(times.ops) != self._oracle.timed.total():
            raise OrderError(f"{len(times.ops)} of {self._oracle.timed.total()} ops have a record")

    def _micro_step(self) -> None:
        oracle = self._oracle
        oracle.begin_turn()
        oracle.work_on_all_streams()
        self._executor.begin_micro_step()
        oracle.check_joined("a micro-step")
        for turn in self._plan.turns[:-1]:
            oracle.begin_turn()
            self._executor.run_turn(turn.module, turn.direction, turn.layer, self._bound)
            oracle.end_turn()
        oracle.begin_turn()
        oracle.work_on_all_streams()
        self._executor.finish(self._bound)
        oracle.check_joined("the end of a step")
        oracle.end_turn()

    def _failing_micro_step(self) -> None:
        try:
            self._micro_step()
        except PlannedFailure as error:
            if not any("in op" in note for note in getattr(error, "__notes__", ())):
                raise OrderError("the error of an op does not say which op it is of") from error
            self._oracle.end_failed()
        else:
            raise OrderError("an op failed and nobody heard of it")


class _WholeWeights:
    """Weights that nobody shards."""

    def gather(self, layer: int) -> None: ...

    def acquire(self, layer: int) -> None: ...

    def release(self, layer: int) -> None: ...

    def abandon(self) -> None: ...

    def check_others(self, layer: int) -> None: ...
