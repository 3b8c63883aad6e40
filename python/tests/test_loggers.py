"""The process that takes metrics to loggers, beside modules that stand for them, and the real TensorBoard if there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.planned import ROOT

FAKES = ROOT / "test" / "fixtures" / "loggers"
STEP: Mapping[str, Any] = {
    "kind": "stepMetrics",
    "time": "2026-01-02T03:04:05.500Z",
    "step": 4,
    "loss": 2.5,
    "learningRate": 1e-3,
    "gradientNorm": None,
    "seconds": 1.5,
    "tokens": 30,
    "tokensPerSecond": 20.0,
    "lossScale": 1,
    "skipped": False,
    "nonFinite": [],
    "memory": {"hbm": {"bytes": 5, "plannedBytes": 6}},
    "repeated": False,
}
EVALUATION: Mapping[str, Any] = {
    "kind": "evaluationMetrics",
    "time": "2026-01-02T03:04:06Z",
    "step": 5,
    "loss": None,
    "perplexity": None,
    "sequences": 2,
    "tokens": 30,
    "seconds": 0.5,
    "repeated": False,
}
LINES = "".join(json.dumps(line) + "\n" for line in (STEP, {"kind": "news"}, EVALUATION))
TRAINED = {
    "train/loss": 2.5,
    "train/learningRate": 1e-3,
    "train/seconds": 1.5,
    "train/tokensPerSecond": 20.0,
    "train/lossScale": 1.0,
    "memory/hbm/bytes": 5.0,
    "memory/hbm/plannedBytes": 6.0,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / "first-run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"kind": "runConfig", "digest": "d"}))
    return run


def log(folder: Path, *names: str, paths: tuple[Path, ...] = (FAKES,), **environment: str) -> tuple[int, Any, str]:
    """Exit code, what it answered, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "fpdt.loggers", "--folder", str(folder), *names],
        input=LINES,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (*paths, ROOT / "python"))),
            "FAKE_LOGGERS": str(folder / "told"),
            **environment,
        },
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def told(folder: Path, logger: str) -> list[dict[str, Any]]:
    facts = [json.loads(line) for line in (folder / "told").read_text().splitlines()]
    return [
        {key: value for key, value in fact.items() if key != "logger"} for fact in facts if fact["logger"] == logger
    ]


def test_every_logger_gets_every_line_and_is_closed(folder: Path) -> None:
    code, answer, printed = log(folder, "tensorboard", "wandb", "mlflow")
    assert (code, answer) == (0, {"ready": ["mlflow", "tensorboard", "wandb"]})
    assert "a logger that prints" in printed
    evaluated = {"evaluation/seconds": 0.5}
    steps = [{"step": 5, "values": TRAINED}, {"step": 5, "values": evaluated}, {"closed": True}]
    assert told(folder, "wandb")[1:] == steps
    assert [fact for fact in told(folder, "mlflow") if "init" not in fact and "file" not in fact] == steps
    boards = told(folder, "tensorboard")
    assert boards[0] == {"init": str(folder / "tensorboard")}
    assert [fact.get("seconds") for fact in boards[1:]] == [1767323045.5, 1767323046.0, None]
    assert [fact.get("values") for fact in boards[1:]] == [TRAINED, evaluated, None]


def test_a_run_that_goes_on_is_the_same_run_to_its_loggers(folder: Path) -> None:
    for _ in range(2):
        assert log(folder, "wandb", "mlflow")[0] == 0
    first, second = (fact["init"] for fact in told(folder, "wandb") if "init" in fact)
    assert first == second
    assert (first["name"], first["resume"], first["config"]["digest"]) == ("first-run", "allow", "d")
    starts = [fact["init"] for fact in told(folder, "mlflow") if isinstance(fact.get("init"), list)]
    assert starts == [[None, "first-run"], ["made-up", None]]
    assert [fact["file"] for fact in told(folder, "mlflow") if "file" in fact] == ["config.json"]


def test_one_that_fails_says_so_once_and_the_others_go_on(folder: Path) -> None:
    code, answer, printed = log(folder, "wandb", "mlflow", FAKE_LOGGERS_FAIL="wandb")
    assert (code, answer) == (1, {"ready": ["mlflow", "wandb"]})
    assert printed.count("fpdt: wandb gets no more metrics: ConnectionError: nobody answers") == 1
    assert told(folder, "mlflow")[-1] == {"closed": True}


def test_one_that_is_not_installed_is_refused_with_what_installs_it(folder: Path) -> None:
    (folder / "nothing" / "wandb").mkdir(parents=True)
    (folder / "nothing" / "wandb" / "__init__.py").write_text("raise ImportError('no wandb here')")
    code, answer, _ = log(folder, "wandb", paths=(folder / "nothing",))
    assert code == 1
    assert answer["error"]["hint"] == "pip install wandb"
    assert "cannot import wandb" in answer["error"]["message"]


def test_one_that_does_not_start_is_refused_by_name(folder: Path) -> None:
    (folder / "wandb.py").write_text("def init(**options):\n    raise RuntimeError('no api key')\n")
    code, answer, _ = log(folder, "wandb", paths=(folder,))
    assert (code, answer) == (
        1,
        {"error": {"message": "wandb does not start: no api key", "hint": "run without --log wandb"}},
    )


def test_tensorboard_itself_reads_what_was_logged(folder: Path) -> None:
    assert log(folder, "tensorboard", paths=())[0] == 0
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    found = {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    assert found.keys() == TRAINED.keys() | {"evaluation/seconds"}
    assert found["train/loss"] == [(5, 2.5)]
