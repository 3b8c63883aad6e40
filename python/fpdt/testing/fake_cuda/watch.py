"""Runs a plan with handlers that do nothing on a made-up device, under the eyes of the oracle."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from fpdt.devices import cuda
from fpdt.plan import OP_KINDS, Plan
from fpdt.run.context import Bound
from fpdt.run.executor import Executor
from fpdt.run.runtime import Runtime
from fpdt.testing.fake_cuda.device import Device, Stream
from fpdt.testing.fake_cuda.files import made_up_files
from fpdt.testing.fake_cuda.install import made_up, make_runtime
from fpdt.testing.fake_cuda.oracle import Oracle, OrderError, PlannedFailure

__all__ = ["OrderError", "watch"]


def watch(plan: Plan, seed: int, module: ModuleType = cuda) -> int:
    """The number of works, of every one of which the oracle approves. Raises OrderError. `module` has the runtime."""
    device = Device(seed)
    with made_up(device, module):
        runtime = make_runtime(plan, device, made_up_files(plan.header.pools, device), module=module)
        oracle = Oracle(plan, runtime, device)
        recorder = runtime.make_recorder(plan.kind_names, 0)
        _run(plan, runtime, device, oracle, Executor(plan, runtime, oracle.handlers(OP_KINDS), recorder))
        runtime.close()
    return oracle.num_works


class _WholeWeights:
    """Weights that nobody shards."""

    def gather(self, layer: int) -> None: ...

    def acquire(self, layer: int) -> None: ...

    def release(self, layer: int) -> None: ...

    def abandon(self) -> None: ...

    def check_others(self, layer: int) -> None: ...


def _nothing_bound(plan: Plan, optimizer_step: Any) -> Bound:
    """A model of no use: handlers that note look at nothing of it."""
    anything: Any = None
    return Bound([anything] * plan.num_layers, anything, _WholeWeights(), optimizer_step)


def _run(plan: Plan, runtime: Runtime, device: Device, oracle: Oracle, executor: Executor) -> None:
    """Two micro-steps, a turn that fails in the middle of one, and a last one whose caller has another stream."""
    bound = _nothing_bound(plan, lambda: oracle.check_joined("the optimizer's step"))
    _micro_step(plan, device, oracle, executor, bound)
    works = oracle.num_works
    _micro_step(plan, device, oracle, executor, bound)
    for share in (0.2, 0.5, 0.9):
        oracle.fail_at = oracle.num_works + int(share * works) + 1
        _failing_step(plan, device, oracle, executor, bound)
    oracle.fail_at = None
    caller = device.current
    device.current = Stream(device)
    device.current.wait_stream(caller)
    _micro_step(plan, device, oracle, executor, bound)
    runtime.synchronize()
    oracle.check_waited("synchronize")


def _micro_step(plan: Plan, device: Device, oracle: Oracle, executor: Executor, bound: Bound) -> None:
    oracle.begin_turn()
    executor.begin_micro_step()
    oracle.check_joined("a micro-step")
    for turn in plan.turns[:-1]:
        oracle.begin_turn()
        executor.run_turn(turn.module, turn.direction, turn.layer, bound)
        oracle.end_turn()
    oracle.begin_turn()
    executor.finish(bound)
    oracle.end_turn()


def _failing_step(plan: Plan, device: Device, oracle: Oracle, executor: Executor, bound: Bound) -> None:
    try:
        _micro_step(plan, device, oracle, executor, bound)
    except PlannedFailure as error:
        if not any("in op" in note for note in error.__notes__):
            raise OrderError("the error of an op does not say which op it is of") from error
        oracle.end_failed()
    else:
        raise OrderError("an op failed and nobody heard of it")
