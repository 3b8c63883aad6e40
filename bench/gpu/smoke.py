"""Every plan of a folder on one GPU: gradients against the unsharded model, copies and memory against the plan."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from fpdt.testing.harness import compare
from fpdt.testing.reference import run_reference

STEPS = 3
FACTOR = 1.5
"""In bf16 the error may be this many times that of the unsharded model in bf16; both against fp64."""
TIMEOUT_SECONDS = 120


def main(folder: Path, result: Path) -> int:
    data = folder / "tokens.bytes"
    plans = sorted(folder.glob("*.plan.json"))
    own_error = reference_error(plans[0], data, folder)
    rows = [run_plan(plan, data, folder, own_error) for plan in plans]
    document = {"kind": "gpuSmoke", **surroundings(), "ownError": own_error, "plans": rows}
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(document, indent=1) + "\n")
    print(f"{'plan':<16}{'ok':>4}{'ratio':>8}{'step s':>9}{'planned':>9}{'hbm MiB':>10}{'planned':>9}{'copied':>8}")
    for row in rows:
        print(
            f"{row['plan']:<16}{'yes' if row['ok'] else 'NO':>4}{row['ratio']:>8.2f}{row['stepSeconds']:>9.3f}"
            f"{row['plannedStepSeconds']:>9.3f}{row['hbmBytes'] / 2**20:>10.1f}{row['plannedHbmBytes'] / 2**20:>9.1f}"
            f"{'equal' if row['copiedEqual'] else 'NO':>8}"
        )
    return 0 if all(row["ok"] for row in rows) else 1


def reference_error(plan: Path, data: Path, folder: Path) -> float:
    """Worst relative gradient error of transformers' own bf16 run; all plans train the same model."""
    for dtype in ("float64", "bfloat16"):
        run_reference(plan, data, 1, dtype, folder / f"reference-{dtype}")
    found = compare({"left": folder / "reference-bfloat16", "right": folder / "reference-float64"})
    return float(found["error"])


def run_plan(plan: Path, data: Path, folder: Path, own_error: float) -> dict[str, Any]:
    name = plan.name.removesuffix(".plan.json")
    dump = folder / f"gradients-{name}"
    document = json.loads(plan.read_text())
    prose = json.loads(document["prose"])
    command = [sys.executable, "-m", "fpdt.worker", "--plan", str(plan), "--data", str(data), "--steps", str(STEPS)]
    run_worker([*command, "--dump-grads", str(dump)])
    first = dump / "step-000000.safetensors"
    for other in dump.glob("*.safetensors"):
        if other != first:
            other.unlink()
    error = compare({"left": dump, "right": folder / "reference-float64"})["error"]
    steps = run_worker(command)
    last = steps[-1]
    ratio = float("inf") if error is None else error / own_error
    planned = prose["prediction"]["copiedBytes"]
    device = prose["memory"]["pools"][0]
    copied_equal = last["copied_bytes"] == planned
    return {
        "plan": name,
        "digest": document["digest"],
        "ok": ratio <= FACTOR and copied_equal,
        "ratio": ratio,
        "losses": [step["loss"] for step in steps],
        "stepSeconds": last["seconds"],
        "plannedStepSeconds": prose["prediction"]["stepSeconds"],
        "hbmBytes": last["pool_bytes"][device["pool"]],
        "plannedHbmBytes": device["peakBytes"],
        "copiedEqual": copied_equal,
        "byKind": last["by_kind"],
    }


def run_worker(command: list[str]) -> list[dict[str, Any]]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def surroundings() -> dict[str, Any]:
    import deepspeed
    import transformers

    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "hardware": torch.cuda.get_device_name(0),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit or os.environ.get("FPDT_COMMIT", "unknown"),
        "command": "bench/gpu/smoke.sh",
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "deepspeed": deepspeed.__version__,
            "transformers": transformers.__version__,
        },
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
