"""Metrics of a run to TensorBoard, Weights & Biases and MLflow, in a process of its own so that no step waits for them.

    python -m fpdt.loggers --folder RUN_FOLDER tensorboard wandb mlflow

Reads lines of metrics.jsonl from standard input until it ends, and answers one JSON line when it is ready for them, or
says why it cannot be: a package that is not installed. The folder is that of the run, with its config.json.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, Protocol

from fpdt.errors import FpdtError

CLOSE_SECONDS = 30
"""For what is still to be sent when the run has ended; whoever does not answer by then is left."""

Scalars = Mapping[str, float]
Config = Mapping[str, Any]


class LoggerError(FpdtError):
    """A logger that is not installed, or that does not start."""


class Logger(Protocol):
    def log(self, scalars: Scalars, step: int, seconds: float) -> None:
        """Values by name after `step` steps; `seconds` since the Unix epoch."""

    def close(self) -> None: ...


class TensorBoard:
    """An event file in `tensorboard` of the run's folder, by the package that writes them: no TensorFlow, no torch."""

    def __init__(self, folder: Path, config: Config) -> None:
        self._events: Any = _import("tensorboard.compat.proto.event_pb2", "tensorboard")
        self._summaries: Any = _import("tensorboard.compat.proto.summary_pb2", "tensorboard")
        writer: Any = _import("tensorboard.summary.writer.event_file_writer", "tensorboard")
        self._writer = writer.EventFileWriter(str(folder / "tensorboard"))

    def log(self, scalars: Scalars, step: int, seconds: float) -> None:
        summary = self._summaries.Summary
        values = [summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._writer.add_event(self._events.Event(wall_time=seconds, step=step, summary=summary(value=values)))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the project that WANDB_PROJECT names, or fpdt. A run that goes on has the same id."""

    def __init__(self, folder: Path, config: Config) -> None:
        wandb: Any = _import("wandb", "wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "fpdt"),
            name=folder.name,
            id=run_id(folder),
            resume="allow",
            dir=str(folder),
            config=dict(config),
        )

    def log(self, scalars: Scalars, step: int, seconds: float) -> None:
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of the tracking server that MLFLOW_TRACKING_URI names, or of `mlruns` in the run's folder."""

    def __init__(self, folder: Path, config: Config) -> None:
        self._mlflow: Any = _import("mlflow", "mlflow")
        if "MLFLOW_TRACKING_URI" not in os.environ:
            self._mlflow.set_tracking_uri((folder / "mlruns").resolve().as_uri())
        note = folder / "mlflow-run-id"
        known = note.read_text().strip() if note.exists() else None
        run = self._mlflow.start_run(run_id=known, run_name=None if known else folder.name)
        if known is None:
            note.write_text(run.info.run_id)
            self._mlflow.log_dict(dict(config), "config.json")

    def log(self, scalars: Scalars, step: int, seconds: float) -> None:
        self._mlflow.log_metrics(dict(scalars), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


LOGGERS: Mapping[str, Callable[[Path, Config], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def run_id(folder: Path) -> str:
    """The same for every part of a run: by the config.json that it began with."""
    return hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()[:16]


def scalars_of(line: Mapping[str, Any]) -> tuple[Scalars, int]:
    """What a line of metrics.jsonl has to plot, and after how many steps; nothing for a line of another kind."""
    if line["kind"] == "stepMetrics":
        names = ("loss", "learningRate", "gradientNorm", "seconds", "tokensPerSecond", "lossScale")
        found = {f"train/{name}": line[name] for name in names}
        for pool, memory in line["memory"].items():
            found |= {f"memory/{pool}/{name}": value for name, value in memory.items()}
        step = int(line["step"]) + 1
    elif line["kind"] == "evaluationMetrics":
        found = {f"evaluation/{name}": line[name] for name in ("loss", "perplexity", "seconds")}
        step = int(line["step"])
    else:
        return {}, 0
    return {name: float(value) for name, value in found.items() if value is not None}, step


def open_loggers(names: Sequence[str], folder: Path) -> dict[str, Logger]:
    """Raises LoggerError for one that is not installed or does not start, by its name."""
    config = json.loads((folder / "config.json").read_text())
    found: dict[str, Logger] = {}
    for name in names:
        try:
            found[name] = LOGGERS[name](folder, config)
        except LoggerError:
            raise
        except Exception as error:
            raise LoggerError(f"{name} does not start: {error}", f"run without --log {name}") from error
    return found


def log_lines(lines: Iterable[str], loggers: dict[str, Logger]) -> None:
    """One that fails says so once and gets no more; the others go on."""
    for text in lines:
        _log(json.loads(text), loggers)


def _log(line: Mapping[str, Any], loggers: dict[str, Logger]) -> None:
    scalars, step = scalars_of(line)
    if scalars:
        seconds = datetime.fromisoformat(line["time"]).timestamp()
        _with_each(loggers, lambda logger: logger.log(scalars, step, seconds))


def close_loggers(loggers: dict[str, Logger]) -> None:
    _with_each(loggers, lambda logger: logger.close())


def _with_each(loggers: dict[str, Logger], work: Callable[[Logger], None]) -> None:
    for name, logger in list(loggers.items()):
        try:
            work(logger)
        except Exception as error:
            del loggers[name]
            print(f"fpdt: {name} gets no more metrics: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LoggerError(f"cannot import {module} with {sys.executable}: {error}", f"pip install {package}") from error


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="fpdt.loggers", description="Metrics of a run, line by line, to loggers.")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the run")
    parser.add_argument("names", nargs="+", choices=sorted(LOGGERS))
    args = parser.parse_args(argv)
    # Ctrl-C is the controller's: what it has sent is logged, and its end ends this too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Loggers print; standard output belongs to the controller.
    try:
        loggers = open_loggers(args.names, args.folder)
    except FpdtError as error:
        print(json.dumps({"error": {"message": str(error), "hint": error.hint}}), file=answers, flush=True)
        leave(1)
    print(json.dumps({"ready": sorted(loggers)}), file=answers, flush=True)
    log_lines(sys.stdin, loggers)
    closing = threading.Thread(target=close_loggers, args=(loggers,), daemon=True)
    closing.start()
    closing.join(CLOSE_SECONDS)
    leave(1 if closing.is_alive() or len(loggers) < len(args.names) else 0)


def leave(code: int) -> NoReturn:
    """Without waiting for threads that a logger may have left behind."""
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
