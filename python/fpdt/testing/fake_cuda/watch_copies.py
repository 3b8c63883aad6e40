"""Runs a plan on a made-up device whose copies are the native engine's, under the eyes of the oracle."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

from fpdt.devices import cuda_copies
from fpdt.plan import Plan
from fpdt.testing.fake_cuda.copy_oracle import CopyOracle
from fpdt.testing.fake_cuda.device import Device, Stream
from fpdt.testing.fake_cuda.driver import driven
from fpdt.testing.fake_cuda.files import made_up_files
from fpdt.testing.fake_cuda.install import made_up, make_runtime
from fpdt.testing.fake_cuda.oracle import require
from fpdt.testing.fake_cuda.pinned import PinnedRanges
from fpdt.testing.fake_cuda.stuck import freed_when_stuck
from fpdt.testing.fake_cuda.watch import StepsOf


def watch_copies(plan: Plan, seed: int, module: ModuleType = cuda_copies) -> int:
    """The number of pieces that were copied, in an order of which the oracle approves. Raises OrderError.

    `module` has the runtime. The plan has no files.
    """
    device = Device(seed)
    ranges = PinnedRanges(before_release=lambda: oracle.check_idle("giving back page-locked memory"))
    files: Any = made_up_files(plan.header.pools, device)
    made: Any = SimpleNamespace(CudaRuntime=module.CopyingCudaRuntime)
    with made_up(device, ranges=ranges), driven(device, ranges, module) as driver:
        runtime = make_runtime(plan, device, files, module=made)
        try:
            oracle = CopyOracle(plan, runtime, device, runtime._owned)  # type: ignore[attr-defined]
            driver.heard = oracle.hear
            recorder = runtime.make_recorder(plan.kind_names, 1)
            engine = runtime._engine  # type: ignore[attr-defined]
            with freed_when_stuck(lambda: engine.fail("all threads wait for each other")):
                _Copies(plan, runtime, device, oracle, recorder).all()
            require(sum(runtime.take_copied_bytes().values()) == oracle.num_bytes, "other bytes are told of")
            oracle.work_on_all_streams()
        finally:
            runtime.close()
    require(not ranges.ranges, "a closed runtime holds on to page-locked memory")
    require(not driver.memory and driver.contexts == 0, "a closed runtime holds on to the driver")
    return oracle.num_pieces


class _Copies(StepsOf):
    def all(self) -> None:
        """Steps with and without times, turns that fail in the middle, and a step whose caller has another stream."""
        self._step(times_ops=False)
        works = self._oracle.num_works
        self._step(times_ops=True)
        self._step(times_ops=False)
        for share in (0.2, 0.5, 0.9):
            self._oracle.fail_at = self._oracle.num_works + int(share * works) + 1
            self._failing_micro_step()
        self._oracle.fail_at = None
        self._device.current = Stream(self._device)
        self._micro_step()
        self._runtime.synchronize()
        self._oracle.check_waited("synchronize")


def fallen_back(plan: Plan, fails: str) -> tuple[str, ...]:
    """What a runtime says that was asked for native copies where a function of the driver fails."""
    device, ranges = Device(0), PinnedRanges()
    made: Any = SimpleNamespace(CudaRuntime=lambda *arguments: cuda_copies.cuda_runtime(True, *arguments))
    with made_up(device, ranges=ranges), driven(device, ranges, fails=(fails,) if fails else ()) as driver:
        runtime = make_runtime(plan, device, {}, module=made, is_attended=False)
        remarks = runtime.remarks
        runtime.close()
    require(not ranges.ranges and not driver.memory and driver.contexts == 0, "something is left")
    return remarks
