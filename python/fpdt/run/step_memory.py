"""Which steps the memory of a rank is measured in, and what was measured last."""

from __future__ import annotations

from contextlib import ExitStack

from fpdt.measure.memory import LiveBytes, measure_pools
from fpdt.measure.sampling import samples_memory
from fpdt.plan import Plan
from fpdt.run.runtime import Runtime


class StepMemory:
    """Live bytes of a rank, counted from now on until `close` with `counts`, then in few steps or, `always`, in all."""

    def __init__(self, plan: Plan, *, counts: bool, always: bool) -> None:
        self.live = LiveBytes()
        self.pool_bytes: dict[str, int] = {}
        """By pool, of the last step that was measured."""
        self._plan, self._always = plan, always
        self._entered = ExitStack()
        self._count(counts)

    def begin_step(self, number: int, runtime: Runtime) -> bool:
        """Whether this step's memory is measured. A device's allocator keeps its peak for nothing."""
        runtime.reset_device_peak()
        if runtime.device_peak_bytes() is not None:
            return True
        measures = self._always or samples_memory(number)
        self._count(measures)
        self.live.reset_peak()
        return measures

    def end_step(self, runtime: Runtime) -> None:
        """Of a step that is measured."""
        self.pool_bytes = measure_pools(self._plan.pool_kinds, runtime, self.live)

    def close(self) -> None:
        self._entered.close()

    def _count(self, on: bool) -> None:
        if on != self.live.active:
            if on:
                self._entered.enter_context(self.live)
            else:
                self._entered.close()
