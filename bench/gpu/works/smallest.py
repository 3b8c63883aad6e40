"""The smallest plans through the worker: does it run at all, and are losses and gradients right."""

from __future__ import annotations

import traceback

from fpdt.plan import load_plan
from gpu.context import Context
from gpu.sessions import HowToRun, run_plan


def run(context: Context) -> None:
    """A plan that fails leaves its traceback, and the next one runs."""
    for name in context.sizes["plans"]:
        try:
            run_one(context, name)
        except Exception:
            context.lines.check(f"plan {name}", False, traceback=traceback.format_exc()[-4000:])


def run_one(context: Context, name: str) -> None:
    plan = load_plan(context.plan_path(name))
    ran = run_plan(context.device, plan, context.tokens_of(name), HowToRun(num_steps=2))
    context.lines.add("plan", plan=name, losses=ran.losses, seconds=[step["seconds"] for step in ran.steps])
    context.compare(f"loss and gradients of {name}", context.reference_of(name), ran.gradients.sketches)
