"""Runs many small jobs in little time: imports torch, DeepSpeed and transformers once and forks every rank from there.

Each line on stdin is one job as JSON, each line on stdout its result. Jobs:

- ``{"id", "kind": "worker", "plan", "data", "steps", "worldSize", "dumpGrads", "options", "environment"}`` runs a plan
  on ``worldSize`` gloo ranks and answers ``{"id", "losses", "steps"}`` of rank 0;
- ``{"id", "kind": "reference", "plan", "data", "steps", "dtype", "dumpGrads"}`` runs the untouched transformers model;
- ``{"id", "kind": "compare", "left", "right"}`` answers the worst relative difference of two gradient dumps.

A job that fails answers ``{"id", "error", "traceback"}``; nothing it started outlives it.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fpdt.run.session import PlanSession

Job = Mapping[str, Any]
Result = dict[str, Any]
DEFAULT_TIMEOUT_SECONDS = 120.0


class JobError(Exception):
    """A job's process failed; carries its traceback."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


def run_worker(job: Job) -> Result:
    """Run one plan on forked ranks. Raises JobError with the first traceback when a rank fails or hangs."""
    port = free_port()
    size = int(job["worldSize"])
    ranks = [fork(partial(worker_rank, job, rank, port)) for rank in range(size)]
    return collect(ranks, float(job.get("timeout", DEFAULT_TIMEOUT_SECONDS)))[0]


def worker_rank(job: Job, rank: int, port: int) -> Result:
    session = open_session(job, rank, port)
    steps = []
    for step in range(int(job["steps"])):
        result = dict(session.run_step(step))
        result.pop("records", None)
        steps.append(result)
    session.close()
    return {"losses": [step["loss"] for step in steps], "steps": steps}


def open_session(job: Job, rank: int, port: int) -> PlanSession:
    """The session of one rank of a `worker` job; a collective over its ranks."""
    environment = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": job["worldSize"],
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({key: str(value) for key, value in environment.items()})
    os.environ.update(job.get("environment", {}))
    from fpdt.run.session import create
    from fpdt.worker import read_plan_file

    header, columns = read_plan_file(Path(job["plan"]))
    options = {"dump_grads": job.get("dumpGrads"), "copy_mode": None, "poison": True, "seed": None, "attention": None}
    return create(header, columns, {**options, "data": job["data"], **job.get("options", {})})


def run_reference(job: Job) -> Result:
    """Run the unsharded model in a forked process."""
    child = fork(lambda: reference_process(job))
    return collect([child], float(job.get("timeout", DEFAULT_TIMEOUT_SECONDS)))[0]


def reference_process(job: Job) -> Result:
    from fpdt.testing.reference import run_reference as run

    dump = job.get("dumpGrads")
    losses = run(
        Path(job["plan"]), Path(job["data"]), int(job["steps"]), job["dtype"], None if dump is None else Path(dump)
    )
    return {"losses": losses}


def compare(job: Job) -> Result:
    """Worst ``|left - right| / |right|`` (2-norms, in fp64) over the tensors of every step's dump; None for NaN."""
    from safetensors.torch import load_file

    left, right = Path(job["left"]), Path(job["right"])
    files = sorted(path.name for path in right.glob("*.safetensors"))
    found = sorted(path.name for path in left.glob("*.safetensors"))
    if files != found or not files:
        raise JobError(f"gradient dumps differ in files: {found} and {files}")
    worst, where = 0.0, ""
    for name in files:
        ours, theirs = load_file(left / name), load_file(right / name)
        if ours.keys() != theirs.keys():
            raise JobError(f"gradient dumps differ in names: {sorted(ours.keys() ^ theirs.keys())}")
        for key, expected in theirs.items():
            reference = expected.double()
            norm = reference.norm().item()
            distance = (ours[key].double() - reference).norm().item()
            error = distance / norm if norm > 0 else distance
            if math.isnan(error):
                return {"error": None, "where": f"{name}:{key}"}
            if error > worst:
                worst, where = error, f"{name}:{key}"
    return {"error": worst, "where": where}


KINDS: dict[str, Callable[[Job], Result]] = {"worker": run_worker, "reference": run_reference, "compare": compare}


def fork(work: Callable[[], Result]) -> tuple[int, int]:
    """Run `work` in a child; (pid, descriptor its JSON answer can be read from)."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid > 0:
        os.close(writer)
        return pid, reader
    os.close(reader)
    os.setpgid(0, 0)
    os.dup2(2, 1)
    try:
        answer: Result = work()
    except BaseException as error:
        answer = {"failed": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    with os.fdopen(writer, "w") as pipe:
        json.dump(answer, pipe)
    os._exit(0)


def collect(children: list[tuple[int, int]], timeout: float) -> list[Result]:
    """The answers of all children, in order. At the first failure or after `timeout` seconds all are killed."""
    deadline = time.monotonic() + timeout
    texts: dict[int, bytes] = {reader: b"" for _, reader in children}
    waiting = set(texts)
    try:
        while waiting:
            ready, _, _ = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise JobError(f"no answer within {timeout:.0f} s: the job hangs")
            for reader in ready:
                block = os.read(reader, 1 << 16)
                texts[reader] += block
                if not block:
                    waiting.discard(reader)
                    check_answer(texts[reader])
        return [json.loads(texts[reader]) for _, reader in children]
    finally:
        for pid, reader in children:
            os.close(reader)
            kill_and_reap(pid)


def check_answer(text: bytes) -> None:
    if not text:
        raise JobError("a process died without an answer")
    answer = json.loads(text)
    if "failed" in answer:
        raise JobError(answer["failed"], answer["traceback"])


def kill_and_reap(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    os.waitpid(pid, 0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answer_job(job: Job) -> Result:
    try:
        return {"id": job["id"], **KINDS[job["kind"]](job)}
    except JobError as error:
        return {"id": job["id"], "failed": str(error), "traceback": error.trace}


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed  # noqa: F401
    import torch  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(answer_job(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
