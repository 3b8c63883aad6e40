"""What a step's tensors are held against: sketches of an fp64 run that staging made, or of this run's earlier steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from gpu.sketch import Sketches, worst_distance

FIRST_BOUND = 0.1
"""Between two runs in bf16, neither of which is the reference: what a wrong mask, wait or scale is far beyond."""
SKETCH_FACTOR = 2.0
"""Against fp64 a run in bf16 may be 1.5 times as far as transformers' own run in bf16; and both distances are read off
sketches, to a fifth."""


class Compared(NamedTuple):
    """`ok` is None where there was nothing to compare with yet."""

    ok: bool | None
    distance: float
    bound: float
    where: str
    source: str


class References:
    """`staged` comes with the wheels; `made` fills while the steps run."""

    def __init__(self, staged: Path, made: Path) -> None:
        self._staged, self._made = staged, made

    def compare(self, name: str, found: Sketches, bound: float | None = None) -> Compared:
        """With the staged reference, else with the first of this name in this run, which the first one becomes."""
        for folder, source in ((self._staged, "fp64"), (self._made, "an earlier step")):
            path = folder / f"{name}.json"
            if path.exists():
                document = json.loads(path.read_text())
                limit = bound if bound is not None else float(document["bound"])
                distance, where = worst_distance(found, document["sketches"])
                return Compared(distance <= limit, distance, limit, where, source)
        write_reference(self._made, name, found, FIRST_BOUND)
        return Compared(None, 0.0, FIRST_BOUND, "", "none yet")


def write_reference(folder: Path, name: str, sketches: Sketches, bound: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"bound": bound, "sketches": sketches}))
