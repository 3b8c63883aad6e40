"""bench/gpu on a CPU: every step of a dry run ends well, with a sketch compared, and planted faults end it badly."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gpu.lines import read_lines
from gpu.manifest import write_manifest
from gpu.sizes import device_sizes, step_rows

from tests.planned import ROOT
from tests.planted import plant, wrong_waits

RUN, PREPARE = (str(ROOT / "bench" / "gpu" / name) for name in ("run.sh", "prepare.sh"))
TIMEOUT_SECONDS = 600.0
STEPS = [row.name for row in step_rows(device_sizes("cpu"))]
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("staging")
    bash([PREPARE, "--dry", str(folder)], {})
    return folder


@pytest.fixture(scope="module")
def dry(staging: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Lines, Path]:
    """Exit code, lines and $OUT of a whole dry run."""
    out = tmp_path_factory.mktemp("dry")
    return *run_dry(staging, out), out


@pytest.fixture
def own_staging(staging: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy whose files a test may change."""
    folder = tmp_path / "staging"
    subprocess.run(["cp", "-r", str(staging), str(folder)], check=True)
    yield folder


def run_dry(staging: Path, out: Path, only: str | None = None, path: Path | None = None) -> tuple[int, Lines]:
    """`path` is searched for modules before the environment's own."""
    options = [] if only is None else ["--only", only]
    environment = {"OUT": str(out), **({} if path is None else {"PYTHONPATH": str(path)})}
    code = bash([RUN, "--dry", "--staging", str(staging), *options], environment, check=False)
    return code, read_lines(out / "result.jsonl")


def bash(command: list[str], environment: dict[str, str], check: bool = True) -> int:
    done = subprocess.run(
        ["bash", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.returncode


def end_of(lines: Lines, step: str) -> dict[str, Any]:
    return next(line for line in lines if (line["step"], line["kind"]) == (step, "end"))


def failed_checks(lines: Lines) -> list[str]:
    return [line["what"] for line in lines if line["kind"] == "check" and not line["ok"]]


def test_a_dry_run_does_every_step(dry: tuple[int, Lines, Path]) -> None:
    code, lines, out = dry
    assert failed_checks(lines) == []
    assert [end_of(lines, step)["status"] for step in ("staging", *STEPS)] == ["ok"] * (1 + len(STEPS)), lines
    assert code == 0
    table = (out / "table.txt").read_text()
    assert all(step in table for step in STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_every_step_compares_a_sketch_with_fp64(dry: tuple[int, Lines, Path], step: str) -> None:
    found = [line for line in dry[1] if line["step"] == step and line.get("source") == "fp64"]
    assert found and all(line["ok"] and line["distance"] <= line["bound"] for line in found)


def test_what_a_run_leaves_comes_back_whole(dry: tuple[int, Lines, Path]) -> None:
    """A lent machine gives back eight files."""
    assert sorted(path.name for path in dry[2].iterdir()) == ["result.jsonl", "table.txt"]


def test_a_cluster_file_is_made_of_the_calibration(dry: tuple[int, Lines, Path], staging: Path, tmp_path: Path) -> None:
    script, cluster = str(ROOT / "bench" / "gpu" / "cluster.ts"), tmp_path / "cluster.json"
    command = ["node", "--import", "tsx", script, str(dry[2] / "result.jsonl"), str(staging), str(cluster)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(cluster.read_text())["ratesProvenance"] == "measured"
    assert (tmp_path / "cluster.shapes.json").exists()


def test_a_wrong_wait_is_found(own_staging: Path, tmp_path: Path) -> None:
    for name in ("small-fpdt", "small-auto"):
        wrong_waits(own_staging / f"{name}.plan.json")
    write_manifest(own_staging, "cpu", "planted")
    code, lines = run_dry(own_staging, tmp_path / "out", "adversary")
    assert code == 1 and end_of(lines, "adversary")["status"] == "failed"
    assert any("bit-equal" in what or "gradients" in what for what in failed_checks(lines)), lines


def test_a_wrong_stride_is_found(staging: Path, tmp_path: Path) -> None:
    """lse comes from the kernel with heads before rows; here its memory is read the other way around."""
    patch = "module.rows_first = lambda x: x.squeeze(0).reshape(x.shape[2], x.shape[1], *x.shape[3:])"
    code, lines = run_dry(staging, tmp_path / "out", "attention", plant(tmp_path, "fpdt.attention.aten_flash", patch))
    assert code == 1 and end_of(lines, "attention")["status"] == "failed"
    wrong = failed_checks(lines)
    assert wrong and all(what.startswith("flash2") for what in wrong)


def test_a_missing_package_is_found(staging: Path, tmp_path: Path) -> None:
    """As on a machine without it to which its wheel was not taken along."""
    hidden = plant(tmp_path, "deepspeed", "raise ModuleNotFoundError('No module named deepspeed', name='deepspeed')")
    code, lines = run_dry(staging, tmp_path / "out", "environment", hidden)
    assert code == 1 and end_of(lines, "environment")["status"] == "failed"
    assert "import deepspeed" in failed_checks(lines)


def test_a_missing_wheel_is_found_before_anything_runs(own_staging: Path, tmp_path: Path) -> None:
    wheel = own_staging / "wheels" / "deepspeed-0.19.8-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"a wheel")
    write_manifest(own_staging, "cpu", "planted")
    wheel.unlink()
    code, lines = run_dry(own_staging, tmp_path / "out", "overlap")
    staged = end_of(lines, "staging")
    assert code == 1 and staged["status"] == "failed" and "deepspeed-0.19.8" in staged["problems"][0]
    assert end_of(lines, "overlap")["status"] == "ok", "the next one goes on"
