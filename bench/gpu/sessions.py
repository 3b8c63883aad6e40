"""Plans run through the worker's own session, in this process, with their gradients sketched instead of written."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fpdt.ops import HANDLERS
from fpdt.plan import Plan
from fpdt.run import session as sessions
from fpdt.run import step as steps
from fpdt.run.session import PlanSession
from gpu.device import Device
from gpu.sketch import Sketches, sketch, with_loss


@dataclass
class Gradients:
    """Of the first step, before clipping, and its loss; `digest` is of all bits of the gradients."""

    sketches: Sketches = field(default_factory=dict)
    digest: str = ""

    def take(self, named: Iterator[tuple[str, Tensor]], with_digest: bool) -> None:
        bits = hashlib.sha256()
        for name, gradient in named:
            self.sketches[name] = sketch(name, gradient)
            if with_digest:
                bits.update(name.encode() + gradient.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        self.digest = bits.hexdigest()


@dataclass(frozen=True)
class Ran:
    """`steps` are what run_step says; `memory` is the device's before the first gradient was sketched; `remarks`
    are the session's."""

    steps: list[dict[str, Any]]
    gradients: Gradients
    memory: dict[str, int]
    remarks: tuple[str, ...]

    @property
    def losses(self) -> list[float]:
        return [step["loss"] for step in self.steps]


@dataclass(frozen=True)
class HowToRun:
    """`handlers`: those of the worker, or others around them. `copy_mode`, `seed`: as a run has them.

    `tracks_memory`: where the allocator keeps no peak, count live bytes, which takes time.
    """

    num_steps: int = 1
    with_digest: bool = False
    tracks_memory: bool = False
    copy_mode: str | None = None
    seed: int | None = None
    handlers: Mapping[str, Any] = field(default_factory=lambda: HANDLERS)


def run_plan(device: Device, plan: Plan, data: Path, how: HowToRun) -> Ran:
    """Everything that was allocated is free again afterwards."""
    gradients, memory = Gradients(), dict[str, int]()
    device.reset_memory()
    # What lives now lives on: DeepSpeed collects garbage whenever it makes an engine.
    gc.freeze()

    def capture(model: nn.Module, folder: Path, step: int, loss_scale: float) -> None:
        if step == 0:
            memory.update(device.memory())
            gradients.take(full_gradients(model, loss_scale), how.with_digest)

    with replaced(steps, "dump_gradients", capture), replaced(sessions, "HANDLERS", how.handlers):
        session = PlanSession(plan, options(data, how), tracks_memory=how.tracks_memory)
        with closing(session):
            remarks = tuple(session.remarks)
            found = [run_step(session, step, how) for step in range(how.num_steps)]
    gradients.sketches = with_loss(gradients.sketches, found[0]["loss"])
    del session
    gc.collect()
    device.reset_memory()
    return Ran(found, gradients, memory, remarks)


def run_step(session: PlanSession, step: int, how: HowToRun) -> dict[str, Any]:
    """What PlanSession.run_step says, or, where memory is not asked for, loss and seconds."""
    if how.tracks_memory:
        return {key: value for key, value in session.run_step(step).items() if key != "records"}
    outcome, times = session.time_step(step, times_ops=False)
    return {"loss": outcome.loss, "seconds": times.seconds}


def full_gradients(model: nn.Module, loss_scale: float) -> Iterator[tuple[str, Tensor]]:
    from deepspeed.utils import safe_get_full_grad

    for name, parameter in model.named_parameters():
        yield name, safe_get_full_grad(parameter) / loss_scale


def options(data: Path, how: HowToRun) -> dict[str, Any]:
    nothing = dict.fromkeys(("weights", "export", "disk_folder", "disk_direct", "trace_folder"))
    return {
        **nothing,
        "data": str(data),
        "dump_grads": "sketched",
        "copy_mode": how.copy_mode,
        "seed": how.seed,
        "poison": False,
        "record_layers": 0,
        "trace_steps": [],
    }


def prose_of(plan: Plan) -> dict[str, Any]:
    """What the planner predicts: `prediction` and `memory`."""
    found: dict[str, Any] = json.loads(plan.prose)
    return found


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
