"""Jobs of the probe process: several training loops, or scripts, one after the other on one pair of ranks."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

from fpdt.testing import faults, harness
from fpdt.testing.children import Result, note_progress
from fpdt.testing.harness import Job
from tests.loop_refusals import refusals
from tests.loops import Place, accelerate_loop, own_loop, own_steps, trainer_loop

LOOPS: Mapping[str, Callable[[Place], Result]] = {
    "own": own_loop,
    "own steps": own_steps,
    "accelerate": accelerate_loop,
    "trainer": trainer_loop,
    "refusals": refusals,
}
KEYS = frozenset({"folder", "loops", "accumulation", "replicas"})
SCRIPT_KEYS = frozenset({"commands"})


def run_loops(job: Job) -> Result:
    _import_once()
    return harness.on_ranks(job, loops_rank)


def loops_rank(job: Job, rank: int, port: int) -> Result:
    """What each of the job's loops gives on rank 0."""
    _prepare(job, rank, port)
    answers: Result = {}
    for loop in job["loops"]:
        place = Place(Path(job["folder"]), int(job["steps"]), int(job["accumulation"]), int(job["replicas"]), rank)
        answers[loop] = LOOPS[loop](place)
        note_progress()
    return answers


def run_scripts(job: Job) -> Result:
    _import_once()
    return harness.on_ranks(job, scripts_rank)


def scripts_rank(job: Job, rank: int, port: int) -> Result:
    """What each of the job's commands prints on rank 0; a command is a Python file and its arguments."""
    _prepare(job, rank, port)
    printed = []
    for command in job["commands"]:
        with redirect_stdout(StringIO()) as output, mock.patch.object(sys, "argv", command):
            runpy.run_path(command[0], run_name="__main__")
        printed.append(output.getvalue())
        note_progress()
    return {"printed": printed}


def _import_once() -> None:
    """What takes seconds to import, before ranks are forked from here."""
    import accelerate  # noqa: F401
    import transformers.trainer  # noqa: F401


def _prepare(job: Job, rank: int, port: int) -> None:
    """What a launcher gives a rank."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job["worldSize"]}
    os.environ.update({key: str(value) for key, value in {**places, "MASTER_PORT": port}.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_DEEPSPEED": "true", "OMP_NUM_THREADS": "1"})
    os.environ.update(job.get("environment", {}))
    faults.install()
    import deepspeed
    import torch

    torch.set_num_threads(1)
    # Compiled with g++ otherwise, on every rank.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
