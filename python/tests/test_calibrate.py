"""Calibration: what workers tell of small plans, and of what is measured apart from them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fpdt.plan import OP_KINDS, load_plan
from tests.planned import ROOT, make_plan

SIZES = {"copy_bytes": 65536, "exchange_bytes": 65536, "layer_bytes": 65536, "block_bytes": 65536}
RATES = [
    "commBytes",
    "commLatencySeconds",
    "d2hBytes",
    "diskReadBytes",
    "diskWriteBytes",
    "duplexBytes",
    "h2dBytes",
    "hostSecondsPerKernel",
    "hostSecondsPerOp",
    "launchSeconds",
    "peakFlops",
]
OF_RANKS = ["gatherBytes", "reduceBytes"]


def run(job: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fpdt.calibrate", str(job)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def measured(folder: Path, *plans: Path, disk_folder: Path | None = None) -> dict[str, float]:
    done = run(write_job(folder, *plans, disk_folder=disk_folder))
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


def write_job(folder: Path, *plans: Path, disk_folder: Path | None = None) -> Path:
    job = folder / "job.json"
    disk = None if disk_folder is None else str(disk_folder)
    job.write_text(
        json.dumps({"plans": [str(plan) for plan in plans], "sizes": SIZES, "seconds": 5, "disk_folder": disk})
    )
    return job


def make_plans(folder: Path, ranks: int) -> list[Path]:
    made = []
    for number, options in enumerate((["--policy", "fpdt"], ["--policy", "auto", "--token-tiles", "4"])):
        (folder / str(number)).mkdir()
        shape = ["--gpus", str(ranks), "--gpu", "cpu", "--seq-len", "512", "--chunks", "2"]
        made.append(make_plan(folder / str(number), *shape, *options))
    return made


def test_tells_every_op_every_instruction_and_every_rate(tmp_path: Path) -> None:
    paths = make_plans(tmp_path, ranks=2)
    found = measured(tmp_path, *paths, disk_folder=tmp_path)
    apart = {name: value for name, value in found.items() if not name.startswith("plan/")}
    assert sorted(apart) == sorted([*RATES, *OF_RANKS])
    assert all(value > 0 for value in apart.values()), apart
    for number, plan in enumerate(map(load_plan, paths)):
        prefix = f"plan/{number}/"
        numbers = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
        assert all(value >= 0 for value in numbers.values())
        calls = [call for turn in plan.turns for call in turn.calls if call.owner == "plan"]
        for call in calls:
            times = sum(other.section == call.section for other in calls)
            for op in plan.sections[call.section].ops:
                if not OP_KINDS[op.kind].external:
                    assert numbers[f"op/{call.section}/{op.id}/count"] == times
        codes = {match[1] for name in numbers if (match := re.match(r"code/(\w+)/0/", name))}
        assert codes >= {"pre", "post", "postBwd", "preBwd", "embed", "embedBwd", "head", "headBwd"}
        instructions = {int(name.split("/")[3]) for name in numbers if name.startswith("code/post/0/")}
        assert instructions == set(range(len(plan.code.classes[0].post.instructions)))
        assert numbers["adam/count"] >= 1
        assert 0 < numbers["idle"] < numbers["step"]
        assert numbers["kind/attn/seconds"] < numbers["step"]
    rows = [{int(name.split("/")[6]) for name in found if name.startswith(f"plan/{n}/code/post/")} for n in (0, 1)]
    assert rows == [{128}, {32}]


@pytest.mark.full
def test_one_rank_has_no_collectives_of_all_and_no_disk_has_no_rate(tmp_path: Path) -> None:
    found = measured(tmp_path, make_plans(tmp_path, ranks=1)[0])
    apart = sorted(name for name in found if not name.startswith("plan/"))
    assert apart == RATES
    assert (found["diskReadBytes"], found["diskWriteBytes"]) == (0, 0)


def test_a_folder_that_cannot_be_written_to_ends_all_ranks(tmp_path: Path) -> None:
    done = run(write_job(tmp_path, make_plans(tmp_path, ranks=2)[0], disk_folder=Path("/proc")))
    assert done.returncode == 1
    assert "cannot make a file in /proc" in done.stderr


@pytest.mark.parametrize("text", ["{}", "no json"])
def test_refuses_what_is_no_job(tmp_path: Path, text: str) -> None:
    job = tmp_path / "job.json"
    job.write_text(text)
    done = run(job)
    assert done.returncode == 1
    assert "error: " in done.stderr and "is no job" in done.stderr
