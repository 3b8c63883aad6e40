"""One length of the long model: its steps against the prediction by kind of op, its memory against the plan."""

from __future__ import annotations

from typing import Any

from fpdt.plan import Plan, load_plan
from gpu.context import Context
from gpu.sessions import HowToRun, Ran, prose_of, run_plan


def run(context: Context) -> None:
    name = context.sizes["plan"]
    plan = load_plan(context.plan_path(name))
    num_steps = int(plan.run["numSteps"])
    ran = run_plan(context.device, plan, context.tokens_of(name), HowToRun(num_steps=num_steps, tracks_memory=True))
    context.lines.add("train", plan=name, **facts_of(plan, ran))
    last = ran.steps[-1]
    context.lines.check(
        f"{name} copies what was planned", last["copied_bytes"] == prose_of(plan)["prediction"]["copiedBytes"]
    )
    context.compare(f"loss and gradients of {name}", context.reference_of(name), ran.gradients.sketches)


def facts_of(plan: Plan, ran: Ran) -> dict[str, Any]:
    prose, last = prose_of(plan), ran.steps[-1]
    pools = {pool["pool"]: pool["peakBytes"] for pool in prose["memory"]["pools"]}
    return {
        "digest": plan.digest,
        "seqLen": plan.run["seqLen"],
        "numLayers": plan.num_layers,
        "kernel": plan.header.kernels.attn,
        "kernels": asked_kernels(plan),
        "strategy": {key: plan.strategy[key] for key in ("policy", "numChunks", "chunkTokens", "prefetchDepth")},
        "losses": ran.losses,
        "seconds": [step["seconds"] for step in ran.steps],
        "plannedSeconds": prose["prediction"]["stepSeconds"],
        "byKind": by_kind(prose["prediction"]["byKind"], last["by_kind"]),
        "idleSeconds": last["idle_seconds"],
        "poolBytes": last["pool_bytes"],
        "plannedPoolBytes": pools,
        "allocator": ran.memory,
    }


def asked_kernels(plan: Plan) -> str:
    """Those beside attention, in the words of --kernels."""
    asked = plan.run.get("kernels")
    if asked is None:
        return "auto"
    return "plain" if set(asked.values()) == {"plain"} else ",".join(f"{kind}={name}" for kind, name in asked.items())


def by_kind(planned: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a step, planned and measured."""
    kinds = sorted(planned.keys() | measured.keys())
    return {
        kind: {
            "planned": planned.get(kind, {}).get("seconds", 0.0),
            "measured": measured.get(kind, {}).get("seconds", 0.0),
            "count": measured.get(kind, {}).get("count", 0),
        }
        for kind in kinds
    }
