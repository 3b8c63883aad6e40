"""The worker under torchrun and under the deepspeed launcher, and what is left of it when they are killed."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from fpdt.wire.procfs import read_stat
from tests.planned import make_plan, run_ranks, write_data

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fpdt.worker")
PATIENCE_SECONDS = 600


def deepspeed() -> tuple[str, ...]:
    """What the deepspeed launcher runs on each host."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = base64.urlsafe_b64encode(json.dumps({"localhost": [0, 1]}).encode()).decode()
    place = (f"--world_info={world}", "--master_addr=127.0.0.1", f"--master_port={port}")
    return ("deepspeed.launcher.launch", *place, "--module", "fpdt.worker")


def start(launcher: tuple[str, ...], *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *launcher, *options]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_ranks_find_their_place_under_launchers_and_end_with_them(tmp_path: Path) -> None:
    options = ["--plan", str(make_plan(tmp_path, "--gpus", "2")), "--data", str(write_data(tmp_path))]
    out, err = start(deepspeed(), *options, "--steps", "1").communicate(timeout=PATIENCE_SECONDS)
    steps = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [step["step"] for step in steps] == [0], err
    launcher = start(TORCHRUN, *options, "--steps", "1000000")
    try:
        assert launcher.stdout is not None
        line = launcher.stdout.readline()
        while not line.startswith("{"):
            assert line, launcher.communicate()[1]
            line = launcher.stdout.readline()
        assert json.loads(line)["loss"] == steps[0]["loss"]
        ranks = children(launcher.pid)
        assert len(ranks) == 2
    finally:
        launcher.kill()
        launcher.communicate()
    while any(stat is not None and not stat.has_ended for stat in map(read_stat, ranks)):
        time.sleep(0.05)


def test_a_mistake_is_told_without_a_traceback(tmp_path: Path) -> None:
    done = run_ranks(1, "--plan", str(tmp_path / "none.json"), "--data", str(write_data(tmp_path)))[0]
    assert done.code == 1
    assert "none.json" in done.err and "Traceback" not in done.err


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
