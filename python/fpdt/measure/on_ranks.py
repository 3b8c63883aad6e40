"""Measures on all ranks of a run at the same time: they share processors, caches and memory."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist

from fpdt.wire import lifeline

MIN_SECONDS = 1.0
"""However late it is: a measurement of less says nothing."""

Measure = Callable[[float], dict[str, float]]
"""Called with the seconds it may take."""


class RankFailedError(Exception):
    """A rank ended without a result."""


def measure_on_ranks(num_ranks: int, deadline: float, backend: str, measure: Measure) -> dict[str, float]:
    """The mean of what `num_ranks` forked processes measure at the same time; it comes back through gloo.

    `deadline` is of time.perf_counter, `backend` that of the process group that `measure` finds.
    Raises RankFailedError.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fpdt-calibrate-") as folder:
        here = partial(measure_here, num_ranks, deadline, backend, measure, f"file://{folder}/ranks")
        children = [fork_rank(here, rank) for rank in range(1, num_ranks)]
        try:
            result = here(0)
        except BaseException:
            for pid in children:  # They wait for this rank.
                os.kill(pid, signal.SIGKILL)
            raise
        finally:
            statuses = [os.waitpid(pid, 0)[1] for pid in children]
    if any(statuses):
        raise RankFailedError(f"a rank failed with exit status {max(statuses)}; its output is above")
    return result


def fork_rank(here: Callable[[int], object], rank: int) -> int:
    """The child measures and exits; only the parent returns, with the child's process id."""
    parent = os.getpid()
    pid = os.fork()
    if pid > 0:
        return pid
    status = 1
    try:
        lifeline.die_with_parent(parent)
        here(rank)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def measure_here(
    num_ranks: int, deadline: float, backend: str, measure: Measure, meeting: str, rank: int
) -> dict[str, float]:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(num_ranks))
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=num_ranks)
    host: dist.ProcessGroup = dist.new_group(backend="gloo")
    budget = torch.tensor([max(deadline - time.perf_counter(), MIN_SECONDS)])
    dist.all_reduce(budget, op=dist.ReduceOp.MIN, group=host)
    found = measure(float(budget[0]))
    names = sorted(found)
    total = torch.tensor([found[name] for name in names], dtype=torch.float64)
    dist.all_reduce(total, group=host)
    return {name: float(value) / num_ranks for name, value in zip(names, total, strict=True)}
