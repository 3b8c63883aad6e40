"""The worker under torchrun and under the deepspeed launcher, and what is left of it when they are killed."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from planned import make_plan, run_ranks, write_data

from fpdt.wire.procfs import read_stat

WORLD = base64.urlsafe_b64encode(json.dumps({"localhost": [0, 1]}).encode()).decode()
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
DEEPSPEED = ("deepspeed.launcher.launch", f"--world_info={WORLD}", "--master_addr=127.0.0.1", "--master_port=0", "--module")
PATIENCE_SECONDS = 600


def start(launcher: tuple[str, ...], *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *launcher, "fpdt.worker", *options]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize("launcher", [TORCHRUN, DEEPSPEED], ids=["torchrun", "deepspeed"])
def test_ranks_find_their_place_under_a_launcher(launcher: tuple[str, ...], tmp_path: Path) -> None:
    options = ["--plan", str(make_plan(tmp_path, "--gpus", "2")), "--data", str(write_data(tmp_path)), "--steps", "1"]
    out, err = start(launcher, *options).communicate(timeout=PATIENCE_SECONDS)
    steps = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [step["step"] for step in steps] == [0], err
    alone = run_ranks(2, *options)
    assert steps[0]["loss"] == alone[0].steps[0]["loss"]


def test_a_mistake_is_told_without_a_traceback(tmp_path: Path) -> None:
    done = run_ranks(1, "--plan", str(tmp_path / "none.json"), "--data", str(write_data(tmp_path)))[0]
    assert done.code == 1
    assert "none.json" in done.err and "Traceback" not in done.err


def test_ranks_end_with_a_launcher_that_is_killed(tmp_path: Path) -> None:
    options = ["--plan", str(make_plan(tmp_path, "--gpus", "2")), "--data", str(write_data(tmp_path))]
    launcher = start(TORCHRUN, *options, "--steps", "1000000")
    try:
        assert launcher.stdout is not None
        while not launcher.stdout.readline().startswith("{"):
            assert launcher.poll() is None
        ranks = children(launcher.pid)
        assert len(ranks) == 2
    finally:
        launcher.kill()
        launcher.communicate()
    while any(stat is not None and not stat.has_ended for stat in map(read_stat, ranks)):
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
