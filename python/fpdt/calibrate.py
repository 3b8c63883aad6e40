"""Measures this machine for `fpdt calibrate`, which says what to measure and makes a cluster file of it.

    python -m fpdt.calibrate job.json

The job names small plans, which are run on as many ranks as the run will have, all at the same time, since they share
caches and memory. One JSON object is printed: what was measured, by name. Everything, imports included, takes about
`seconds`; a slow machine gets fewer repeats, never a wrong number.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fpdt.environment import prepare_imports
from fpdt.errors import FpdtError
from fpdt.wire.exits import exit_now
from fpdt.wire.lifeline import CONTROLLER_PID_VARIABLE, die_with_parent

_STARTED = time.perf_counter()
_RESERVE_SECONDS = 1.0
"""For joining the ranks."""
_RATES_SHARE = 0.25
"""Of the time, for what no plan is needed for."""


@dataclass(frozen=True)
class Job:
    """`sizes` are the fields of rates.Sizes."""

    plans: Sequence[str]
    sizes: Mapping[str, int]
    seconds: float
    disk_folder: str | None


class CalibrationError(FpdtError):
    """Something the user can change."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fpdt.calibrate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("job", type=Path, help="job.json, as `fpdt calibrate` writes it")
    path: Path = parser.parse_args(arguments).job
    if CONTROLLER_PID_VARIABLE in os.environ:
        die_with_parent()
    try:
        print(json.dumps(measure(read_job(path)), allow_nan=False), flush=True)
    except FpdtError as error:
        hint = f"; {error.hint}" if error.hint else ""
        print(f"error: {error}{hint}", file=sys.stderr)
        return 1
    return 0


def read_job(path: Path) -> Job:
    try:
        return Job(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CalibrationError(f"{path} is no job: {error}", "start `fpdt calibrate`, which writes one") from error


def measure(job: Job) -> dict[str, float]:
    """What is measured of the plans, `plan/N/` before its names, and the rates; means of the ranks.

    Raises CalibrationError where a rank fails.
    """
    from fpdt.plan import load_plan

    plans = [load_plan(Path(plan)) for plan in job.plans]
    first, folder = plans[0], None if job.disk_folder is None else Path(job.disk_folder)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    prepare_imports(first.device)
    from fpdt.attention import installed_kernels
    from fpdt.measure.on_ranks import RankFailedError, measure_on_ranks
    from fpdt.measure.probe_run import measure_plan
    from fpdt.measure.rates import Sizes, measure_rates
    from fpdt.run.engine import start_deepspeed
    from fpdt.run.ranks import BACKENDS, join_process_group, sequence_group

    def on_rank(left: float) -> dict[str, float]:
        ranks = join_process_group(first)
        start_deepspeed()
        found = {f"installed/{name}": 1.0 for name in installed_kernels()}
        for number, plan in enumerate(plans):
            share = (1 - _RATES_SHARE) * left / len(plans)
            found.update({f"plan/{number}/{name}": value for name, value in measure_plan(plan, share).items()})
        group = sequence_group(first, ranks.rank)
        return {**found, **measure_rates(first, group, Sizes(**job.sizes), _RATES_SHARE * left, folder)}

    deadline = _STARTED + job.seconds - _RESERVE_SECONDS
    try:
        return measure_on_ranks(first.world_size, deadline, BACKENDS[first.device], on_rank)
    except RankFailedError as error:
        raise CalibrationError(str(error)) from error


if __name__ == "__main__":
    # gloo's threads may abort the process when it unwinds.
    exit_now(main())
