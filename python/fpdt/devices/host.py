"""What the runtimes of a CPU have in common: the host's clock, and no allocator of their own."""

from __future__ import annotations

from time import perf_counter

from fpdt.measure.timing import Recorder
from fpdt.run.runtime import Runtime


class HostRuntime(Runtime):
    """Marks are seconds of the host, reached when they are made."""

    def make_recorder(self, kinds: tuple[str, ...], record_layers: int = 0) -> Recorder:
        return Recorder(self, kinds, record_layers)

    def mark(self) -> float:
        return perf_counter()

    def remark(self, mark: float | None, stream: None = None) -> float:
        return perf_counter()

    def is_reached(self, mark: float) -> bool:
        return True

    def await_mark(self, mark: float) -> None:
        """It is reached already."""

    def seconds_between(self, start: float, end: float) -> float:
        return end - start

    def device_peak_bytes(self) -> int | None:
        return None

    def reset_device_peak(self) -> None:
        """The CPU allocator keeps no peak; memory.LiveBytes does."""
