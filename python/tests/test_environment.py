"""What is set before PyTorch and DeepSpeed are imported, and by whom."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fpdt import worker
from fpdt.environment import ALLOCATOR, prepare_imports


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", found)
    return found


def ours(environment: dict[str, str]) -> dict[str, str]:
    """pytest says there which test runs."""
    return {name: value for name, value in environment.items() if not name.startswith("PYTEST")}


def test_a_gpu_has_segments_that_grow(environment: dict[str, str]) -> None:
    prepare_imports("cuda")
    assert ours(environment) == {"DS_ACCELERATOR": "cuda", "PYTORCH_ALLOC_CONF": "expandable_segments:True"}


def test_a_cpu_has_no_such_allocator(environment: dict[str, str]) -> None:
    prepare_imports("cpu")
    assert ours(environment) == {"DS_ACCELERATOR": "cpu"}


@pytest.mark.parametrize("name", ALLOCATOR)
def test_what_the_user_set_stays(name: str, environment: dict[str, str]) -> None:
    environment.update({name: "max_split_size_mb:64", "DS_ACCELERATOR": "cpu"})
    prepare_imports("cuda")
    assert ours(environment) == {name: "max_split_size_mb:64", "DS_ACCELERATOR": "cpu"}


def test_a_worker_sets_it_for_the_device_of_its_plan(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SimpleNamespace(create=lambda *_: dict(environment))
    monkeypatch.setitem(sys.modules, "fpdt.run.session", session)
    assert worker.create(b'{"device": "cuda"}', b"", {}, {})["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


@pytest.mark.parametrize("module", ["fpdt.worker", "fpdt.calibrate", "fpdt.plan"])
def test_nothing_before_it_imports_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
