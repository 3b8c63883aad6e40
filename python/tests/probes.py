"""The harness with jobs that only tests need; started as `python -m tests.probes`.

- ``{"kind": "scratch", ...}``, as a ``worker`` job: runs a step and answers ``{"scratch": [[section, op id, bytes]]}``,
  the measured peak of every op on rank 0;
- ``{"kind": "heldLayer", "layer", ...}``: runs a step while somebody else holds a layer gathered;
- ``{"kind": "weights", ...}``: each step's result on rank 0, with a digest of its weights, masters and
  moments after it;
- ``{"kind": "load", ...}``: starts up and answers ``{"load": [{pool: bytes}]}``, what that needed on every rank.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

from fpdt.testing import harness
from fpdt.testing.children import Result, run_children
from fpdt.testing.harness import Job


def run_scratch(job: Job) -> Result:
    return harness.on_ranks(job, scratch_rank)


def scratch_rank(job: Job, rank: int, port: int) -> Result:
    session = harness.open_session(job, rank, port)
    session.run_step(0)
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


if __name__ == "__main__":
    harness.KINDS.update(
        {"scratch": run_scratch, "heldLayer": run_held_layer, "weights": run_weights, "load": run_load}
    )
    worker = harness.KEYS["worker"]
    harness.KEYS.update({"scratch": worker, "heldLayer": worker | {"layer"}, "weights": worker, "load": worker})
    harness.main()
