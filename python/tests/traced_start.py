"""Start-up of one rank of many without memory: `python -m tests.traced_start plan.json RANK` prints its peak as JSON.

The session's own steps run under FakeTensorMode with a process group that answers at once: tensors have shapes and no
bytes, and LiveBytes counts what they would have. The model is built, streamed and wrapped by DeepSpeed as always.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import deepspeed  # noqa: F401  Before the process group: it looks for one when it is imported.
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from fpdt.measure.memory import LiveBytes
from fpdt.plan import Plan, load_plan
from fpdt.run.engine import build_engine, start_deepspeed
from fpdt.run.kernels import plan_kernels
from fpdt.run.rank_model import rank_model
from fpdt.run.stream import stream


def traced_start(plan: Plan, rank: int) -> int:
    """Peak bytes of start-up on `rank`."""
    os.environ.update(RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE=str(plan.world_size))
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=plan.world_size)
    start_deepspeed()
    device = torch.device("cpu")
    live = LiveBytes()
    # A fake weight takes no random numbers, and the state of a generator is a real tensor.
    with (
        patch.object(nn.Module, "_apply", _apply),
        patch.object(torch.random, "fork_rng", nullcontext_for),
        patch.object(torch, "manual_seed"),
        FakeTensorMode(),
        live,
    ):
        model = rank_model(plan, None, device)
        streamed = stream(model, plan, plan_kernels(plan), device)
        engine = build_engine(streamed, plan, {})
        del engine
    return live.peak_bytes


def nullcontext_for(**_options: object) -> nullcontext[None]:
    return nullcontext()


def _apply(module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """As nn.Module does it for real weights: it would swap fake ones, and cannot while anybody refers to them."""
    for child in module.children():
        _apply(child, fn, recurse)
    for parameter in module._parameters.values():
        if parameter is not None:
            parameter.data = fn(parameter.data)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = fn(buffer)
    return module


if __name__ == "__main__":
    peak = traced_start(load_plan(Path(sys.argv[1])), int(sys.argv[2]))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"peakBytes": peak, "cpuSeconds": used.ru_utime, "residentBytes": used.ru_maxrss * 1024}))
    sys.stdout.flush()
    os._exit(0)
