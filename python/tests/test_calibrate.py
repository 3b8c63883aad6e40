"""Calibration: a ClusterSpec of measured rates, within its time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fpdt import calibrate

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples" / "demo" / "model.json"
RATES = [
    "matmulFlops",
    "attentionForwardFlops",
    "attentionBackwardFlops",
    "memoryBytes",
    "h2dBytes",
    "d2hBytes",
    "duplexBytes",
    "commBytes",
    "commLatencySeconds",
    "launchSeconds",
    "optimizerSecondsPerParameter",
    "stepOverheadSeconds",
]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fpdt.calibrate", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def test_writes_the_cluster_of_the_ranks(tmp_path: Path) -> None:
    output = tmp_path / "cluster.json"
    started = time.monotonic()
    sizes = ("--ranks", "2", "--seq-len", "1024", "--chunk-tokens", "256", "--seconds", "3")
    done = run("--model", str(MODEL), *sizes, "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 60
    spec: dict[str, Any] = json.loads(output.read_text())
    assert (spec["kind"], spec["device"], spec["numRanks"], spec["ratesProvenance"]) == (
        "cluster",
        "cpu",
        2,
        "measured",
    )
    assert sorted(spec["rates"]) == sorted(RATES)
    positive = {name: value for name, value in spec["rates"].items() if name != "duplexBytes"}
    assert all(value > 0 for value in positive.values()), positive
    assert 1e8 < spec["rates"]["matmulFlops"] < 1e14
    assert 1e8 < spec["rates"]["attentionForwardFlops"] < 1e14
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ranks", "3"], "--ranks 3 does not divide the model's 2 key/value heads"),
        (["--chunk-tokens", "255"], "--chunk-tokens 255 does not divide over 2 ranks"),
        (["--seq-len", "100", "--chunk-tokens", "256"], "shorter than a chunk"),
    ],
)
def test_refuses_sizes_that_do_not_divide(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate.main(["--model", str(MODEL), "--output", str(tmp_path / "c.json"), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()


def test_names_what_a_model_config_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.json"
    model.write_text('{"hidden_size": 8}')
    assert calibrate.main(["--model", str(model), "--output", str(tmp_path / "c.json")]) == 1
    assert "has no intermediate_size, num_attention_heads" in capsys.readouterr().err


def test_says_which_file_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate.main(["--model", str(tmp_path / "no.json"), "--output", str(tmp_path / "c.json")]) == 1
    assert "cannot read" in capsys.readouterr().err
