"""Fixtures that several files share; what needs torch is imported inside, since tests of the wire do without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.planned import ROOT


@pytest.fixture
def flash2_calls() -> Iterator[list[dict[str, Any]]]:
    """FlashAttention-2 on the CPU; the arguments of its calls."""
    from tests.fake_flash import flash_on_cpu

    with flash_on_cpu() as calls:
        yield calls


@pytest.fixture(scope="session")
def direct_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose file system has direct transfers; there must be one."""
    from fpdt.devices.file_pool import FilePool
    from tests.file_pools import BLOCK

    candidates = [tmp_path_factory.mktemp("direct"), Path(__file__).parent, Path("/dev/shm")]
    for folder in candidates:
        if folder.is_dir():
            pool = FilePool(folder, BLOCK, "probe")
            pool.close()
            if pool.direct:
                return folder
    pytest.fail(
        f"direct transfers need a file system with O_DIRECT (ext4, xfs, btrfs, or tmpfs of Linux 6.6 or later) at one "
        f"of {', '.join(map(str, candidates))}; set TMPDIR to one"
    )


class Probes:
    """One process that imports torch once and runs the jobs of tests/probes.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, **job: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps({"id": 0, "steps": 1, **job}, default=str), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@pytest.fixture(scope="session")
def fake_cuda_plan(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Plans by the names of fake_cuda_plans.CASES, each made once."""
    from tests.fake_cuda_plans import CASES, plan_of

    return lru_cache(lambda name: plan_of(CASES[name], tmp_path_factory.mktemp("fake-cuda")))


@pytest.fixture(scope="session")
def probes() -> Iterator[Probes]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.probes"],
        cwd=ROOT / "python",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield Probes(process)
