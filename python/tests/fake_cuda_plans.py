"""Plans of the planner's that a made-up CUDA device runs: placements, segments, files, windows, ranks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.planned import MODEL, ZERO_3, make_plan

LLAMA = {**MODEL, "num_hidden_layers": 4}
MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": 40}
PLACES: Mapping[str, Any] = {
    "keyValues": "host",
    "keyValueGradients": "hbm",
    "attentionOutput": "recompute",
    "rebuiltOutput": "recompute",
    "checkpoints": "host",
    "backwardOrder": "keyValueOuterAscending",
}
KEYS_ON_HOST = {**PLACES, "layers": [0, 4], "segments": [1, 1, 1, 1]}
SEGMENTS_OF_2 = {
    **PLACES,
    "layers": [0, 4],
    "segments": [2, 2],
    "keyValueGradients": "host",
    "rebuiltOutput": "host",
    "checkpoints": "disk",
    "backwardOrder": "queryOuterDescending",
}
OUTPUT_IN_FILE = {**KEYS_ON_HOST, "attentionOutput": "disk"}
MIXED = [
    {**SEGMENTS_OF_2, "layers": [0, 3], "segments": [2, 1], "rebuiltOutput": "disk"},
    {**SEGMENTS_OF_2, "layers": [3, 4], "segments": [1], "keyValues": "hbm", "rebuiltOutput": "recompute"},
]


@dataclass(frozen=True)
class Case:
    ranges: Sequence[Mapping[str, Any]] | None = None
    """None: what a policy chooses."""
    model: Mapping[str, Any] = field(default_factory=lambda: LLAMA)
    options: tuple[str, ...] = ()
    zero: Mapping[str, Any] = field(default_factory=lambda: ZERO_3)
    accumulation_steps: int = 1
    num_ranks: int = 1
    packing: bool = False


CASES = {
    "keys on the host": Case([KEYS_ON_HOST], accumulation_steps=2),
    "segments of 2, a file": Case([SEGMENTS_OF_2], options=("--kv-tile", "3")),
    "windows, ranges, a file": Case(MIXED, MISTRAL, ("--attention", "reference")),
    "ulysses, ZeRO-1": Case(None, LLAMA, ("--policy", "ulysses-offload"), zero={"stage": 1}),
    "auto, bf16": Case(None, LLAMA, ("--policy", "auto", "--segment-layers", "2", "--dtype", "bfloat16")),
    "two ranks": Case([KEYS_ON_HOST], num_ranks=2),
    "documents, a file": Case([OUTPUT_IN_FILE], packing=True),
}


WIDE = {**LLAMA, "hidden_size": 64, "intermediate_size": 1024, "num_hidden_layers": 12}
FEW_LARGE_OPS = Case(None, WIDE, ("--policy", "ulysses", "--chunks", "1"), num_ranks=2)
"""Little work in a layer, and many weights: launch queues hold most of a forward."""


PlanOf = Callable[[str], Path]
"""plan.json of a case, by its name."""


def plan_of(case: Case, folder: Path, *more: str) -> Path:
    """`more`: options after the case's own."""
    options = ["--gpus", str(case.num_ranks), "--chunks", "4", "--seq-len", "59", *case.options, *more]
    if case.ranges is not None:
        strategy = {"hiddenGradients": "hbm", "prefetchDepth": 2, "layers": case.ranges}
        (folder / "strategy.json").write_text(json.dumps(strategy))
        options += ["--strategy", "strategy.json"]
    if "disk" in json.dumps(case.ranges):
        options += ["--disk-bytes", "1G"]
    return make_plan(
        folder,
        *options,
        model=case.model,
        zero=case.zero,
        accumulation_steps=case.accumulation_steps,
        packing=case.packing,
        more={"bf16": {"enabled": True}} if "bfloat16" in options else None,
    )
