"""Jobs of the probe process: which collectives ranks call, and on which groups."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

from fpdt.testing import harness
from fpdt.testing.children import Result, run_children
from fpdt.testing.harness import Job

COLLECTIVES = (
    *("all_gather", "all_gather_into_tensor", "all_reduce", "all_to_all_single", "barrier", "broadcast", "gather"),
    *("reduce", "reduce_scatter_tensor", "scatter"),
)


def run_groups(job: Job) -> Result:
    return harness.on_ranks(job, groups_rank)


def groups_rank(job: Job, rank: int, port: int) -> Result:
    from torch.distributed import distributed_c10d

    used: set[Any] = set()
    _note_collectives(lambda _, group, __: used.add(group) if group is not None and group.size() > 1 else None)
    session = harness.open_session(job, rank, port)
    session.run_step(0)
    session.close()
    return {"groups": len(used), "timeouts": [_timeout_seconds(group) for group in distributed_c10d._world.pg_map]}


def _timeout_seconds(group: Any) -> float:
    import torch

    return float(group._get_backend(torch.device("cpu")).options._timeout.total_seconds())


def _note_collectives(note: Callable[[str, Any, tuple[Any, ...]], None]) -> None:
    """Tells of every collective, with its group and arguments, before it is called."""
    import torch.distributed as dist
    from torch.distributed import distributed_c10d

    def noting(name: str, collective: Any) -> Any:
        def noted(*args: Any, **keywords: Any) -> Any:
            given = [keywords.get("group"), *args]
            group = next((one for one in given if isinstance(one, dist.ProcessGroup)), dist.group.WORLD)
            note(name, group, args)
            return collective(*args, **keywords)

        return noted

    for name in COLLECTIVES:
        noted = noting(name, getattr(dist, name))
        setattr(dist, name, noted)
        setattr(distributed_c10d, name, noted)


def run_collectives(job: Job) -> Result:
    port = harness.free_port()
    works = [partial(collectives_rank, job, rank, port) for rank in range(int(job["worldSize"]))]
    return {"ranks": [rank["phases"] for rank in run_children(works, harness.idle_seconds(job))]}


def collectives_rank(job: Job, rank: int, port: int) -> Result:
    import torch.distributed as dist

    from fpdt import devices
    from fpdt.run import open_runtime

    phases: dict[str, list[list[Any]]] = {"before arenas": []}

    def note(name: str, group: Any, args: tuple[Any, ...]) -> None:
        sizes = [arg.numel() for arg in args if hasattr(arg, "numel")]
        phase = next(reversed(phases))
        phases[phase].append([name, None if group is None else group.size(), *sizes])

    def made(*args: Any, **keywords: Any) -> Any:
        runtime = plan_runtime(*args, **keywords)
        phases["arenas"] = []
        return runtime

    plan_runtime = devices.plan_runtime
    mock.patch.object(open_runtime, "plan_runtime", made).start()
    _note_collectives(note)
    session = harness.open_session(job, rank, port)
    for step in range(int(job["steps"])):
        phases[f"step {step}"] = []
        session.run_step(step)
    dist.barrier()  # A rank that leaves takes the others' store, or their links, with it.
    return {"phases": phases}
