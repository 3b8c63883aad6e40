"""`fpdt calibrate` here: Python's half of it, with the job that the planner made; and its first plan's gradients."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fpdt.plan import load_plan
from gpu.context import Context
from gpu.sessions import HowToRun, run_plan

TAIL_CHARACTERS = 3000


def run(context: Context) -> None:
    """The numbers become a cluster file where Node is: bench/gpu/cluster.ts."""
    job = json.loads((context.staging / "calibration.json").read_text())["job"]
    plans = [str(context.staging.absolute() / plan) for plan in job["plans"]]
    numbers = measure({**job, "plans": plans})
    context.lines.add("calibration", numbers=numbers)
    context.lines.check("numbers are positive", all(value >= 0 for value in numbers.values()), count=len(numbers))
    data = context.staging / f"{context.table['calibration']['model']}.bin"
    ran = run_plan(context.device, load_plan(plans[0]), data, HowToRun())
    context.compare("loss and gradients of the first plan", "calibration", ran.gradients.sketches)


def measure(job: dict[str, Any]) -> dict[str, float]:
    """As `fpdt calibrate` starts it: in a process of its own, whose process group ends with it. Raises RuntimeError."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "job.json"
        path.write_text(json.dumps(job))
        command = [sys.executable, "-m", "fpdt.calibrate", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"fpdt.calibrate: {done.stderr[-TAIL_CHARACTERS:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
