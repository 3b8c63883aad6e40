"""The same plan with its copies launched from Python and by the native engine: seconds of a step, equal gradients.

Steps are not timed op by op: those that are have all their ops launched from Python.
"""

from __future__ import annotations

import os

import torch

from fpdt.plan import load_plan
from gpu.context import Context
from gpu.sessions import HowToRun, run_plan


def run(context: Context) -> None:
    # As in the adversary's step.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True, warn_only=True)
    for name in context.sizes["plans"]:
        compare_modes(context, name)


def compare_modes(context: Context, name: str) -> None:
    plan, digests = load_plan(context.plan_path(name)), list[str]()
    for mode in context.sizes["copyModes"]:
        how = HowToRun(num_steps=context.sizes["numSteps"], with_digest=True, copy_mode=mode)
        ran = run_plan(context.device, plan, context.tokens_of(name), how)
        digests.append(ran.gradients.digest)
        seconds = [step["seconds"] for step in ran.steps]
        facts = {"seqLen": plan.run["seqLen"], "numLayers": plan.num_layers, "seconds": seconds}
        context.lines.add("copyMode", plan=name, mode=mode, remarks=list(ran.remarks), **facts)
        context.compare(f"loss and gradients of {name}, {mode}", context.reference_of(name), ran.gradients.sketches)
        context.lines.check(f"{name} has copies {mode}", not any("by events, for" in remark for remark in ran.remarks))
    context.lines.check(f"{name} has the same gradients in every copy mode", len(set(digests)) == 1)
