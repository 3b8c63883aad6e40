"""The harness with jobs that only tests need; started as `python -m tests.probes`, see test_session.py.

- ``{"kind": "scratch", ...}``, as a ``worker`` job: runs a step and answers ``{"scratch": [[section, op id, bytes]]}``,
  the measured peak of every op on rank 0;
- ``{"kind": "heldLayer", "layer", ...}``: runs a step while somebody else holds a layer gathered.
"""

from __future__ import annotations

from typing import Any

from fpdt.testing import harness
from fpdt.testing.children import Result
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


if __name__ == "__main__":
    harness.KINDS.update({"scratch": run_scratch, "heldLayer": run_held_layer})
    worker = harness.KEYS["worker"]
    harness.KEYS.update({"scratch": worker, "heldLayer": worker | {"layer"}})
    harness.main()
