"""Calibration: a ClusterSpec of measured rates, within its time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fpdt import calibrate
from fpdt.measure import rates
from fpdt.measure.probe import Shapes

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples" / "demo" / "model" / "config.json"
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
    "hostSecondsPerOp",
    "hostSecondsPerKernel",
    "diskReadBytes",
    "diskWriteBytes",
]
MAY_BE_ZERO = {"duplexBytes", "diskReadBytes", "diskWriteBytes"}
SMALL = ("--model", str(MODEL), "--seq-len", "1024", "--chunk-tokens", "256", "--seconds", "3")


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fpdt.calibrate", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def calibrated(output: Path, *options: str) -> dict[str, Any]:
    done = run(*SMALL, *options, "--output", str(output))
    assert done.returncode == 0, done.stderr
    spec: dict[str, Any] = json.loads(output.read_text())
    assert sorted(spec["rates"]) == sorted(RATES)
    assert all(value > 0 for name, value in spec["rates"].items() if name not in MAY_BE_ZERO), spec["rates"]
    return spec


def test_writes_the_cluster_of_the_ranks(tmp_path: Path) -> None:
    spec = calibrated(tmp_path / "cluster.json", "--ranks", "2")
    kind = [spec[name] for name in ("kind", "device", "numRanks", "ratesProvenance", "diskBytes")]
    assert kind == ["cluster", "cpu", 2, "measured", 0]
    assert (spec["rates"]["diskReadBytes"], spec["rates"]["diskWriteBytes"]) == (0, 0)
    assert 1e8 < spec["rates"]["matmulFlops"] < 1e14
    assert 1e8 < spec["rates"]["attentionForwardFlops"] < 1e14
    assert spec["rates"]["hostSecondsPerOp"] < 1e-3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cluster.json", "cluster.shapes.json"]


def test_measures_a_disk_and_ranks_that_do_not_divide_the_heads(tmp_path: Path) -> None:
    spec = calibrated(tmp_path / "cluster.json", "--ranks", "4", "--disk-folder", str(tmp_path))
    assert spec["rates"]["diskReadBytes"] > 0
    assert spec["rates"]["diskWriteBytes"] > 0
    assert 0 < spec["diskBytes"] <= shutil.disk_usage(tmp_path).free
    assert spec["diskBytes"] % 4096 == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cluster.json", "cluster.shapes.json"]


def test_a_folder_that_cannot_be_written_to_ends_all_ranks(tmp_path: Path) -> None:
    done = run(*SMALL, "--ranks", "2", "--disk-folder", "/proc", "--output", str(tmp_path / "cluster.json"))
    assert done.returncode == 1
    assert "error: cannot make a file in /proc" in done.stderr


def test_compares_with_an_earlier_calibration(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.json"
    spec = calibrated(cluster, "--ranks", "1")
    kernels = ("matmulFlops", "attentionForwardFlops", "attentionBackwardFlops")
    spec["rates"].update({name: 100 * spec["rates"][name] for name in kernels})
    cluster.write_text(json.dumps(spec))
    done = run("--compare", str(cluster), "--seconds", "3")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer.keys() == {"factor"}
    # Of a machine that was a hundred times as fast, however busy this one is now.
    assert 0 < answer["factor"] < 0.5


def test_seconds_of_a_layer_follow_its_rates() -> None:
    shapes = Shapes(8, 12, 4, 2, 4, 1, 100, 16, 2, 2)
    found = {"attentionForwardFlops": 1e9, "attentionBackwardFlops": 1e9, "matmulFlops": 1e9}
    once = rates.layer_seconds(shapes, found)
    assert rates.layer_seconds(shapes, {name: 2 * rate for name, rate in found.items()}) == pytest.approx(once / 2)
    pairs = 2 * 16 * 17 / 2 + 16 * 16
    weights = 16 * 8 + 2 * 8 * 8 + 8 * 16 + 3 * 8 * 12
    assert once == pytest.approx((3.5 * 4 * pairs * 2 * 4 + 2 * 4 * 2 * 8 * weights) / 1e9)


def test_refuses_to_compare_with_what_was_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = tmp_path / "cluster.json"
    cluster.write_text("{}")
    assert calibrate.main(["--compare", str(cluster)]) == 1
    assert "cluster.shapes.json" in capsys.readouterr().err
    (tmp_path / "cluster.shapes.json").write_text("{}")
    assert calibrate.main(["--compare", str(cluster)]) == 1
    assert "was not written by a calibration" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--model", "m"], ["--model", "m", "--output", "o", "--compare", "c"]])
def test_refuses_half_of_a_command(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        calibrate.main(options)
    assert "give --model and --output, or --compare" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ranks", "5"], "--ranks 5: the model's 4 query heads are for 1 to 4 ranks"),
        (["--disk-folder", "/nowhere"], "--disk-folder: cannot use /nowhere"),
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
