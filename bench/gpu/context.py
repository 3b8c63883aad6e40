"""What a step is given."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu.device import Device
from gpu.lines import Lines
from gpu.references import References
from gpu.sizes import plan_row
from gpu.sketch import Sketches


@dataclass(frozen=True)
class Context:
    """`sizes` are the step's own, `table` the device's; `staging` has what was made beforehand."""

    device: Device
    table: dict[str, Any]
    sizes: dict[str, Any]
    staging: Path
    lines: Lines
    references: References

    def seconds(self, body: Callable[[], object]) -> float:
        """Of one call, with the device idle before and after."""
        self.device.synchronize()
        start = time.perf_counter()
        body()
        self.device.synchronize()
        return time.perf_counter() - start

    def compare(self, what: str, reference: str, found: Sketches, bound: float | None = None) -> None:
        """A check of the sketches; where nothing is there to compare with they become the reference."""
        result = self.references.compare(reference, found, bound)
        facts = {"distance": result.distance, "bound": result.bound, "where": result.where, "source": result.source}
        if result.ok is None:
            self.lines.add("sketch", what=what, **facts)
        else:
            self.lines.check(what, result.ok, **facts)

    def plan_path(self, name: str) -> Path:
        return self.staging / f"{name}.plan.json"

    def tokens_of(self, name: str) -> Path:
        """The token file of a plan's model."""
        return self.staging / f"{plan_row(self.table, name)['model']}.bin"

    def reference_of(self, name: str) -> str:
        return str(plan_row(self.table, name)["reference"])
