"""Kernels beside attention, kind by kind: ops of a layer and of the head with all, with none, and without each of them.

Each way is first held against fp64 at a small size, then timed at that of a plan.
"""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Mapping

import torch
from pydantic.alias_generators import to_camel

from fpdt.measure.memory import LiveBytes
from fpdt.models.fused import FUSED_KERNELS
from fpdt.plan import Plan, load_plan
from fpdt.plan.nouns import FusedKernels
from gpu.context import Context
from gpu.plan_ops import Source, plan_ops
from gpu.sketch import Sketches, sketch


def run(context: Context) -> None:
    """A way that fails leaves its traceback, and the next one runs."""
    for ours, measure in ((context.sizes["checkPlan"], check), (context.sizes["plan"], time_ops)):
        plan = load_plan(context.plan_path(ours))
        for name, fused in ways(plan).items():
            try:
                measure(context, plan, name, fused)
            except Exception:
                context.lines.check(f"kernels {name} of {ours}", False, traceback=traceback.format_exc()[-3000:])


def ways(plan: Plan) -> Mapping[str, FusedKernels]:
    """In the words of --kernels, against what the plan names."""
    named = plan.header.kernels.fused
    kinds = [kind for kind in FUSED_KERNELS if getattr(named, kind) != "plain"]
    return {
        "auto": named,
        "plain": named.model_copy(update=dict.fromkeys(kinds, "plain")),
        **{f"{to_camel(kind)}=plain": named.model_copy(update={kind: "plain"}) for kind in kinds},
        "weightGradient=addmm": named.model_copy(update={"weight_gradient": "addmm"}),
    }


def check(context: Context, plan: Plan, name: str, fused: FusedKernels) -> None:
    source = Source(context.device.torch, torch.bfloat16, is_seeded=True)
    found = sketches_of_ops(plan, fused, context.sizes["checkRows"], source)
    context.compare(f"ops with kernels {name}", "kernels", found)


def sketches_of_ops(plan: Plan, fused: FusedKernels, rows: int, source: Source) -> Sketches:
    ops = plan_ops(plan, fused, rows, rows, source)
    return {
        f"{op}/{what}": sketch(f"{op}/{what}", values) for op, body in ops.items() for what, values in body().items()
    }


def time_ops(context: Context, plan: Plan, name: str, fused: FusedKernels) -> None:
    """Seconds of an op, and bytes of what it makes inside at most."""
    rows, loss_rows = context.sizes["rows"], context.sizes["lossRows"]
    ops = plan_ops(plan, fused, rows, loss_rows, Source(context.device.torch, torch.bfloat16, is_seeded=False))
    for op, body in ops.items():
        with LiveBytes() as live, live.scope() as scope:
            body()
        seconds = statistics.median(context.seconds(body) for _ in range(context.sizes["repeats"]))
        context.lines.add(
            "kernels",
            plan=context.sizes["plan"],
            op=op,
            kernels=name,
            rows=loss_rows if op == "loss" else rows,
            seconds=seconds,
            scratchBytes=scope.peak_bytes,
        )
