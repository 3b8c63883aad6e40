"""Runs many small jobs in little time: imports torch, DeepSpeed and transformers once and forks every rank from there.

Each line on stdin is one job as JSON, each line on stdout its result. Jobs:

- ``{"id", "kind": "worker", "plan", "data", "steps", "worldSize", "dumpGrads", "options", "environment",
  "documents", "lengths"}`` runs a plan on ``worldSize`` gloo ranks and answers ``{"id", "losses", "steps"}`` of rank 0;
  ``options`` are those of protocol.RunOptions, by their Python names, where they differ from DEFAULT_OPTIONS;
  ``documents`` is the seed of packed documents (see packed.py) in place of one document a sequence, ``lengths`` are
  theirs where they are not drawn; with it the answer has ``documents``, where they begin in each micro-step of the
  first step, and ``pairs`` of queries and keys that attention of all steps was asked for, by op kind;
- ``{"id", "kind": "reference", "plan", "data", "steps", "dtype", "dumpGrads", "documents"}`` runs the untouched
  transformers model, document by document;
- ``{"id", "kind": "compare", "left", "right"}`` answers the worst relative difference of two gradient dumps.

A job that fails answers ``{"id", "failed", "traceback"}``; nothing it started outlives it. It may take any time: it
hangs, and fails, when none of its processes has moved for ``idleSeconds``, a key of every job that forks.
"""

from __future__ import annotations

import gc
import json
import math
import os
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpdt.testing import faults
from fpdt.testing.children import JobError, Result, note_progress, run_children
from fpdt.wire import lifeline
from fpdt.wire.protocol import RunOptions
from fpdt.wire.schedule import is_due

if TYPE_CHECKING:
    from fpdt.run.session import PlanSession

Job = Mapping[str, Any]
RankWork = Callable[[Job, int, int], Result]
DEFAULT_IDLE_SECONDS = 30.0
DEFAULT_OPTIONS: Mapping[str, Any] = {
    "data_options": None,
    "weights": None,
    "export": None,
    "dump_grads": None,
    "copy_mode": None,
    "poison": True,
    "seed": None,
    "disk_folder": None,
    "disk_direct": None,
    "record_layers": 0,
    "trace_steps": [],
    "trace_folder": None,
    "checkpoint": None,
    "resume": None,
    "on_non_finite": None,
    "evaluation": None,
}


def run_worker(job: Job) -> Result:
    """Run one plan on forked ranks. Raises JobError with the first traceback when a rank fails, or when all hang."""
    return on_ranks(job, worker_rank)


def on_ranks(job: Job, work: RankWork) -> Result:
    """What `work(job, rank, port)` answers on rank 0 of ``worldSize`` forked ranks."""
    port = free_port()
    works = [partial(work, job, rank, port) for rank in range(int(job["worldSize"]))]
    return run_children(works, idle_seconds(job))[0]


def idle_seconds(job: Job) -> float:
    return float(job.get("idleSeconds", DEFAULT_IDLE_SECONDS))


def worker_rank(job: Job, rank: int, port: int) -> Result:
    session = open_session(job, rank, port)
    note_progress()
    steps: list[Result] = []
    saved: list[Result] = []
    evaluations: list[Result] = []
    num_steps, evaluation, first = int(job["steps"]), run_options(job).evaluation, session.next_step
    for num_done in range(first, num_steps + 1):
        if num_done > first:
            result = dict(session.run_step(num_done - 1))
            result.pop("records", None)
            steps.append(result)
            session.save_when_due(num_done, num_steps)
            saved += session.take_saved()
            note_progress()
        if evaluation is not None and is_due(num_done, num_steps, evaluation.every):
            evaluations.append({"step": num_done, **session.evaluate(lambda _: note_progress())})
    if run_options(job).export is not None:
        session.export_model()
    session.close()
    answer = {
        "losses": [step["loss"] for step in steps],
        "steps": steps,
        "saved": saved,
        "remarks": list(session.remarks),
        "evaluations": evaluations,
    }
    documents = session.engine.program.documents
    if job.get("documents") is None or documents is None:
        return answer
    return {**answer, "documents": documents_of_step(job), "pairs": documents.pairs}


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
    import torch

    from fpdt.data.batches import open_batches
    from fpdt.run import session
    from fpdt.testing.packed import packed_batches
    from fpdt.worker import read_plan_file

    torch.set_num_threads(1)  # Eight ranks may share two processors.
    if faults.VARIABLE in os.environ:
        faults.install()
    source = open_batches if job.get("documents") is None else partial(packed_batches, *documents_of(job))
    # The session decodes the plan: a made-up device has its own decoder there.
    options = run_options(job).model_dump(by_alias=False)
    return session.create(*read_plan_file(Path(job["plan"])), options, open_source=source)


def documents_of(job: Job) -> tuple[int, tuple[int, ...] | None]:
    """Seed and lengths of packed documents."""
    lengths = job.get("lengths")
    return int(job["documents"]), None if lengths is None else tuple(lengths)


def documents_of_step(job: Job) -> list[tuple[int, ...]]:
    """Where those of rank 0 begin in the micro-steps of the first step."""
    from fpdt.data.options import DataOptions
    from fpdt.plan import load_plan
    from fpdt.testing.packed import packed_batches

    plan = load_plan(job["plan"])
    batches = packed_batches(*documents_of(job), plan, DataOptions(Path(job["data"])), 0)
    return [batches.read(0, number).document_starts for number in range(int(plan.run["gradientAccumulationSteps"]))]


def run_options(job: Job) -> RunOptions:
    """Raises pydantic's ValidationError for an option that is unknown or not what it should be."""
    given = {"dump_grads": job.get("dumpGrads"), "data": job["data"], **job.get("options", {})}
    return RunOptions(**{**DEFAULT_OPTIONS, **given})


def run_reference(job: Job) -> Result:
    """Run the unsharded model in a forked process."""
    return run_children([partial(reference_process, job)], idle_seconds(job))[0]


def reference_process(job: Job) -> Result:
    from fpdt.testing.reference import run_reference as run

    dump = job.get("dumpGrads")
    losses = run(
        Path(job["plan"]),
        Path(job["data"]),
        int(job["steps"]),
        job["dtype"],
        None if dump is None else Path(dump),
        documents=job.get("documents"),
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
KEYS: dict[str, frozenset[str]] = {
    "worker": frozenset({"plan", "data", "steps", "worldSize", "dumpGrads", "options", "environment", "idleSeconds"})
    | {"documents", "lengths"},
    "reference": frozenset({"plan", "data", "steps", "dtype", "dumpGrads", "documents", "idleSeconds"}),
    "compare": frozenset({"left", "right"}),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answer_job(job: Job) -> Result:
    try:
        if job["kind"] not in KINDS:
            raise JobError(f"there is no job of kind {job['kind']}; kinds: {', '.join(KINDS)}")
        unknown = job.keys() - KEYS[job["kind"]] - {"id", "kind"}
        if unknown:
            raise JobError(f"a job of kind {job['kind']} has no {', '.join(sorted(unknown))}")
        return {"id": job["id"], **KINDS[job["kind"]](job)}
    except JobError as error:
        return {"id": job["id"], "failed": str(error), "traceback": error.trace}


def main() -> None:
    lifeline.die_with_parent()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed  # noqa: F401
    import torch  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import fpdt.run.session
    import fpdt.testing.packed  # noqa: F401

    # Ranks look at none of it when they collect garbage, which would copy every page of it too.
    gc.collect()
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(answer_job(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
