"""Streams out of step on purpose: a plan's waits alone must keep every bit of the gradients as it was.

Before random ops the op's own stream is kept busy for a random time, and on a CPU ops run in a random order that the
waits allow. The control, the same plan without waits, must differ: else the adversary is too weak to show anything.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fpdt.ops import HANDLERS
from fpdt.plan import Plan, load_plan
from gpu.context import Context
from gpu.device import Device
from gpu.sessions import HowToRun, run_plan


def run(context: Context) -> None:
    # Before the first product: with one workspace cuBLAS gives the same bits in every run.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True, warn_only=True)
    for name in context.sizes["plans"]:
        check_plan(context, name)
    for name in context.sizes["controls"]:
        check_control(context, name)


def check_plan(context: Context, name: str) -> None:
    plan, data = load_plan(context.plan_path(name)), context.tokens_of(name)
    calm = [run_plan(context.device, plan, data, HowToRun(with_digest=True)).gradients for _ in range(2)]
    context.lines.check(f"{name} is the same from run to run", calm[0].digest == calm[1].digest)
    context.compare(f"loss and gradients of {name}", context.reference_of(name), calm[0].sketches)
    for seed in context.sizes["seeds"]:
        found = run_plan(context.device, plan, data, unsteady(context, seed)).gradients.digest
        context.lines.check(f"{name} with seed {seed} is bit-equal", found == calm[0].digest)


def check_control(context: Context, name: str) -> None:
    """Comes last: what an op reads too early may be an index out of range, after which a GPU does nothing more."""
    plan, data = load_plan(context.plan_path(name)), context.tokens_of(name)
    calm = run_plan(context.device, plan, data, HowToRun(with_digest=True)).gradients.digest
    found = []
    for seed in context.sizes["seeds"]:
        try:
            ran = run_plan(context.device, without_waits(plan), data, unsteady(context, seed))
            found.append(ran.gradients.digest)
        except RuntimeError as error:
            found.append(str(error)[:300])
            break
    context.lines.check(f"{name} without waits differs", any(digest != calm for digest in found), found=found)


def unsteady(context: Context, seed: int) -> HowToRun:
    sizes = context.sizes
    handlers = sleepy(HANDLERS, context.device, random.Random(seed), sizes["sleepShare"], sizes["sleepCycles"])
    return HowToRun(with_digest=True, copy_mode=sizes["copyMode"], seed=seed, handlers=handlers)


def sleepy(
    handlers: Mapping[str, Any], device: Device, source: random.Random, share: float, cycles: int
) -> dict[str, Any]:
    """Handlers whose stream sleeps first, now and then; the session calls them with the op's stream current."""

    def wrap(handler: Any) -> Any:
        def late(*arguments: Any) -> None:
            if source.random() < share:
                device.sleep(source.randrange(cycles))
            handler(*arguments)

        return late

    return {kind: wrap(handler) for kind, handler in handlers.items()}


def without_waits(plan: Plan) -> Plan:
    columns = dataclasses.replace(
        plan.columns, waits_at=np.zeros_like(plan.columns.waits_at), wait=plan.columns.wait[:0]
    )
    sections = {name: dataclasses.replace(section, columns=columns) for name, section in plan.sections.items()}
    turns = tuple(
        turn.model_copy(
            update={"calls": tuple(call.model_copy(update={"waits": (0,) * len(call.waits)}) for call in turn.calls)}
        )
        for turn in plan.turns
    )
    train = plan.header.programs.train.model_copy(update={"turns": turns})
    programs = plan.header.programs.model_copy(update={"train": train})
    header = plan.header.model_copy(update={"programs": programs})
    return dataclasses.replace(plan, header=header, columns=columns, sections=sections)
