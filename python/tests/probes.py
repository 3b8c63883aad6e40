"""The harness with jobs that only tests need; started as `python -m tests.probes`.

- ``{"kind": "scratch", ...}``, as a ``worker`` job: runs a step and answers ``{"scratch": [[section, op id, bytes]]}``,
  the measured peak of every op on rank 0;
- ``{"kind": "heldLayer", "layer", ...}``: runs a step while somebody else holds a layer gathered;
- ``{"kind": "modules", ...}``: starts up and answers ``{"modules"}``, what rank 0 has loaded by then;
- ``{"kind": "weights", ...}``: each step's result on rank 0, with a digest of its weights, masters and
  moments after it;
- ``{"kind": "load", ...}``: starts up and answers ``{"load": [{pool: bytes}]}``, what that needed on every rank;
- ``{"kind": "fakeCuda", "seeds", ...}``: steps on the CPU device and, for each seed, on a made-up CUDA device whose
  orders are drawn from it, with ``"native"`` copies by the engine; answers ``{"cpu", "seeds"}``, losses and digests
  of gradients;
- ``{"kind": "asynchronous", ...}``: the same with DeepSpeed's branches for streams, answers ``{"cpu", "losses"}`` and,
  for each of ``{"steps"}``, who made the host wait and where, and the calls of DeepSpeed's streams;
- ``{"kind": "collectives", ...}``: every rank's collectives by phase, each with its group's size and tensors' elements;
- ``{"kind": "loops", "folder", "loops", "accumulation", "replicas"}``: what training loops of tests/loop_jobs.py give;
- ``{"kind": "scripts", "commands"}``: answers ``{"printed"}``, what Python files with their arguments print on rank 0;
- ``{"kind": "groups", ...}``: runs a step and answers ``{"groups"}``, how many groups of several ranks rank 0 sent on,
  and ``{"timeouts"}``, after how many seconds a collective of each of its groups fails.
"""

from __future__ import annotations

import hashlib
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from fpdt.testing import harness
from fpdt.testing.children import Result, run_children
from fpdt.testing.harness import Job
from tests import collective_jobs, loop_jobs


def run_scratch(job: Job) -> Result:
    return harness.on_ranks(job, scratch_rank)


def scratch_rank(job: Job, rank: int, port: int) -> Result:
    session = harness.open_session(job, rank, port)
    session.run_step(0)
    if harness.run_options(job).evaluation is not None:
        session.evaluate(lambda sequence: None)
    debug = session.debug
    assert debug is not None
    return {"scratch": [[*where, peak] for where, peak in debug.scratch_by_op.items()]}


def run_held_layer(job: Job) -> Result:
    return harness.on_ranks(job, held_layer_rank)


def held_layer_rank(job: Job, rank: int, port: int) -> Result:
    import deepspeed  # Not sooner: it prints, and standard output is for answers until harness.main has moved it.

    session = harness.open_session(job, rank, port)
    model: Any = session.engine.model
    deepspeed.zero.GatheredParameters(list(model.model.layers[job["layer"]].parameters())).__enter__()
    return {"loss": session.run_step(0)["loss"]}


def run_modules(job: Job) -> Result:
    return harness.on_ranks(job, modules_rank)


def modules_rank(job: Job, rank: int, port: int) -> Result:
    """What a rank has loaded when its session is made."""
    harness.open_session(job, rank, port)
    return {"modules": sorted(sys.modules)}


def run_weights(job: Job) -> Result:
    return harness.on_ranks(job, weights_rank)


def weights_rank(job: Job, rank: int, port: int) -> Result:
    session = harness.open_session(job, rank, port)
    steps = []
    for step in range(int(job["steps"])):
        result = session.run_step(step)
        del result["records"]
        steps.append({**result, "weights": weights_digest(session.engine)})
    session.close()
    return {"steps": steps}


def weights_digest(engine: Any) -> str:
    """Of what this rank holds."""
    weights = [getattr(weight, "ds_tensor", weight).detach() for weight in engine.model.parameters()]
    for master, state in engine.deepspeed.optimizer.optimizer.state.items():
        weights += [master.detach(), state["exp_avg"], state["exp_avg_sq"]]
    return hashlib.sha256(b"".join(weight.float().numpy().tobytes() for weight in weights)).hexdigest()


def run_load(job: Job) -> Result:
    port = harness.free_port()
    works = [partial(load_rank, job, rank, port) for rank in range(int(job["worldSize"]))]
    return {"load": [rank["load"] for rank in run_children(works, harness.idle_seconds(job))]}


def load_rank(job: Job, rank: int, port: int) -> Result:
    import torch.distributed as dist

    session = harness.open_session(job, rank, port)
    dist.barrier()  # A rank that leaves takes the others' store, or their links, with it.
    return {"load": session.load_pool_bytes}


def run_fake_cuda(job: Job) -> Result:
    return harness.on_ranks(job, fake_cuda_rank)


def fake_cuda_rank(job: Job, rank: int, port: int) -> Result:
    from fpdt.testing.fake_cuda.device import Device
    from fpdt.testing.fake_cuda.session import sessions_on

    answers, is_native = [_steps_dumped(job, rank, port)], bool(job.get("native"))
    for seed in job["seeds"]:
        with sessions_on(Device(seed), is_native=is_native):
            answers.append(_steps_dumped(job, rank, port))
    return {"cpu": answers[0], "seeds": answers[1:]}


def run_asynchronous(job: Job) -> Result:
    return harness.on_ranks(job, asynchronous_rank)


def asynchronous_rank(job: Job, rank: int, port: int) -> Result:
    from fpdt.testing.fake_cuda.accelerator import HostWaits, asynchronous
    from fpdt.testing.fake_cuda.device import Device
    from fpdt.testing.fake_cuda.session import sessions_on

    plain = harness.worker_rank(job, rank, port)["losses"]
    waits, device, steps = HostWaits(), Device(), []
    with sessions_on(device), asynchronous(waits, device):
        session = harness.open_session(job, rank, port)
        losses = []
        for step in range(int(job["steps"])):
            waits.clear()
            losses.append(session.run_step(step)["loss"])
            found = [[wait.owner, wait.place, wait.in_turn] for wait in waits.waits]
            steps.append({"waits": found, "calls": dict(waits.calls)})
        session.close()
    return {"cpu": plain, "losses": losses, "steps": steps}


def run_evaluated_first(job: Job) -> Result:
    return harness.on_ranks(job, evaluated_first_rank)


def evaluated_first_rank(job: Job, rank: int, port: int) -> Result:
    """Losses of steps that follow two evaluations."""
    session = harness.open_session(job, rank, port)
    for _ in range(2):
        session.evaluate(lambda sequence: None)
    losses = [session.run_step(step)["loss"] for step in range(int(job["steps"]))]
    session.close()
    return {"losses": losses}


def run_allocations(job: Job) -> Result:
    return harness.on_ranks(job, allocations_rank)


def allocations_rank(job: Job, rank: int, port: int) -> Result:
    from fpdt.devices import cuda
    from fpdt.testing.fake_cuda.allocations import QUEUE_DEPTH, allocated_on
    from fpdt.testing.fake_cuda.allocator import CachingAllocator
    from fpdt.testing.fake_cuda.device import Device
    from fpdt.testing.fake_cuda.session import sessions_on

    device, allocator = Device(is_lazy=True, queue_depth=QUEUE_DEPTH), CachingAllocator()
    mock.patch.object(cuda, "TURNS_AHEAD", job["turnsAhead"] or cuda.TURNS_AHEAD).start()
    with sessions_on(device, is_postponed=False), allocated_on(device, allocator) as seen:
        session = harness.open_session(job, rank, port)
        for step in range(int(job["steps"])):
            session.run_step(step)
        peaks = dict(seen.peaks)
        session.close()
    return {"peaks": peaks, "reserved": allocator.reserved_bytes}


def _steps_dumped(job: Job, rank: int, port: int) -> list[Any]:
    """Losses, and a digest of each step's gradients, which rank 0 writes."""
    folder = Path(job["dumpGrads"])
    losses = harness.worker_rank(job, rank, port)["losses"]
    if rank != 0:
        return []
    files = sorted(folder.glob("*.safetensors"))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    for path in files:
        path.unlink()
    return [*losses, *digests]


if __name__ == "__main__":
    harness.KINDS.update(
        {
            "allocations": run_allocations,
            "asynchronous": run_asynchronous,
            "collectives": collective_jobs.run_collectives,
            "evaluatedFirst": run_evaluated_first,
            "fakeCuda": run_fake_cuda,
            "groups": collective_jobs.run_groups,
            "heldLayer": run_held_layer,
            "load": run_load,
            "loops": loop_jobs.run_loops,
            "modules": run_modules,
            "scratch": run_scratch,
            "scripts": loop_jobs.run_scripts,
            "weights": run_weights,
        }
    )
    worker = harness.KEYS["worker"]
    more = {
        "allocations": {"turnsAhead"},
        "fakeCuda": {"native", "seeds"},
        "heldLayer": {"layer"},
        "loops": loop_jobs.KEYS,
        "scripts": loop_jobs.SCRIPT_KEYS,
    }
    harness.KEYS.update({kind: worker | more.get(kind, set()) for kind in harness.KINDS if kind not in harness.KEYS})
    harness.main()
