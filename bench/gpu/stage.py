"""`python -m gpu.stage DEVICE FOLDER COMMIT`: sketches of fp64 runs into the staging folder, then what is in it."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from fpdt.attention import backend_named
from fpdt.plan import load_plan
from fpdt.plan.nouns import PLAIN
from fpdt.run.gradients import gradient_file
from fpdt.testing.reference import run_reference
from gpu.attention_cases import attention_cases, run_case
from gpu.fpdt_layer import block_inputs, plain_block, sketches_of
from gpu.manifest import write_manifest
from gpu.plan_ops import Source
from gpu.references import SKETCH_FACTOR, write_reference
from gpu.sizes import device_sizes, step_rows
from gpu.sketch import Sketches, sketch, with_loss, worst_distance
from gpu.works.environment import product
from gpu.works.host import round_trip
from gpu.works.kernels import sketches_of_ops

CPU = torch.device("cpu")
CALIBRATION = "calibration"


def main(device: str, folder: Path, commit: str) -> None:
    table, sketches = device_sizes(device), folder / "sketches"
    write_reference(sketches, "product", product(CPU, torch.float64), bound=0.0)
    write_reference(sketches, "round-trip", round_trip(CPU), bound=0.0)
    for case in attention_cases(table):
        found = run_case(case, backend_named("reference"), CPU, torch.float64)
        write_reference(sketches, f"attention-{case.name}", found, bound=0.0)
        gc.collect()
    write_bounded(sketches, "block", lambda dtype: block_sketches(table["layer"], dtype))
    row = next(row for row in step_rows(table) if row.work == "kernels")
    write_bounded(sketches, "kernels", lambda dtype: plain_ops(folder, row.sizes, dtype))
    for name in table["references"]:
        plan, data = example_of(table, folder, name)
        write_bounded(sketches, name, lambda dtype, plan=plan, data=data: training_sketches(plan, data, dtype))  # type: ignore[misc]
    write_manifest(folder, device, commit)


def write_bounded(folder: Path, name: str, run: Callable[[torch.dtype], Sketches]) -> None:
    """The fp64 run's, and how far from it a run in bf16 may be: some times as far as the same code in bf16 is."""
    exact = run(torch.float64)
    own, where = worst_distance(run(torch.bfloat16), exact)
    write_reference(folder, name, exact, SKETCH_FACTOR * own)
    print(f"{name}: {len(exact)} tensors, in bf16 {own:.2e} away ({where})")


def block_sketches(sizes: dict[str, Any], dtype: torch.dtype) -> Sketches:
    block = block_inputs(sizes, sizes["checkTokens"], CPU, dtype)
    output = plain_block(block, sizes)
    output.backward(block["dy"])  # type: ignore[no-untyped-call]
    return sketches_of(output, block)


def plain_ops(folder: Path, sizes: dict[str, Any], dtype: torch.dtype) -> Sketches:
    plan = load_plan(folder / f"{sizes['checkPlan']}.plan.json")
    return sketches_of_ops(plan, PLAIN, sizes["checkRows"], Source(CPU, dtype, is_seeded=True))


def example_of(table: dict[str, Any], folder: Path, reference: str) -> tuple[Path, Path]:
    """A plan that trains what the reference is of, and its tokens."""
    if reference == CALIBRATION:
        return folder / "plan-0.json", folder / f"{table['calibration']['model']}.bin"
    row = next(row for row in table["plans"] if row["reference"] == reference)
    return folder / f"{row['name']}.plan.json", folder / f"{row['model']}.bin"


def training_sketches(plan: Path, data: Path, dtype: torch.dtype) -> Sketches:
    with tempfile.TemporaryDirectory() as scratch:
        losses = run_reference(plan, data, 1, str(dtype).removeprefix("torch."), Path(scratch))
        found = {name: sketch(name, gradient) for name, gradient in load_file(gradient_file(scratch, 0)).items()}
        return with_loss(found, losses[0])


if __name__ == "__main__":
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
