"""Host time of the run loop: microseconds per executed op of a plan's micro-step, with empty handlers.

    PYTHONPATH=python .venv/bin/python bench/host.py plan.json
    PYTHONPATH=python .venv/bin/python bench/host.py plan.json --legacy CHECKOUT --legacy-plan old.plan.json

Eager CPU mode, telemetry as in a run (totals by kind, no records). Every repeat runs all calls of a micro-step; the
result is the median of the repeats. With --legacy an old checkout (plan version 1) is measured in turn with this one,
each in a process of its own, so that both meet the same noise. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPEATS = 5
HERE = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("plan", type=Path, help="plan.json of version 2")
    parser.add_argument("--legacy", type=Path, help="checkout whose plans have version 1")
    parser.add_argument("--legacy-plan", type=Path, help="plan.json made by that checkout")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="measurements, of which the median counts")
    parser.add_argument("--serve", choices=["new", "legacy"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        serve(args.plan, args.serve)
        return
    if (args.legacy is None) != (args.legacy_plan is None):
        parser.error("give --legacy and --legacy-plan together")
    servers = {"new": start(HERE, args.plan, "new")}
    if args.legacy is not None:
        servers["legacy"] = start(args.legacy, args.legacy_plan, "legacy")
    facts = {name: json.loads(readline(server)) for name, server in servers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(args.repeats):
        for name, server in servers.items():
            assert server.stdin is not None
            print("run", file=server.stdin, flush=True)
            seconds[name].append(float(readline(server)))
    for server in servers.values():
        server.communicate()
    print(json.dumps({name: summary(facts[name], seconds[name]) for name in servers}))


def summary(facts: dict[str, Any], seconds: list[float]) -> dict[str, Any]:
    per_op = [1e6 * item / facts["executedOps"] for item in seconds]
    found = {"microsecondsPerOp": round(statistics.median(per_op), 3)}
    return {**facts, **found, "all": [round(item, 3) for item in per_op]}


def start(checkout: Path, plan: Path, api: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout / "python"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(plan), "--serve", api]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def readline(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        raise SystemExit("a measuring process ended; its error is above")
    return line


def serve(plan: Path, api: str) -> None:
    """Answers facts of the plan, and then the seconds of a micro-step to every line."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    run, executed, num_ops = (new_runner if api == "new" else legacy_runner)(plan)
    facts = {
        "ops": num_ops,
        "executedOps": executed,
        "linkSeconds": round(time.perf_counter() - started, 3),
        "linkMiB": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
    }
    run()
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        print(run(), flush=True)


Runner = tuple[Callable[[], float], int, int]


def nothing(*_: Any) -> None:
    """An empty handler."""


class NoWeights:
    """Weights that are always whole."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return nothing


def new_runner(path: Path) -> Runner:
    from fpdt.devices import create_runtime
    from fpdt.plan import OP_KINDS, load_plan
    from fpdt.run.context import Bound
    from fpdt.run.executor import Executor

    plan = load_plan(path)
    # Whatever device the plan is for: arenas are mapped, and empty handlers touch none of their pages.
    runtime = create_runtime("cpu", plan.header.pools, streams=plan.streams, links=plan.header.links)
    recorder = runtime.make_recorder(plan.kind_names, 0)
    executor = Executor(plan, runtime, dict.fromkeys(OP_KINDS, nothing), recorder)
    anything: Any = None
    bound = Bound([anything] * plan.num_layers, anything, NoWeights(), nothing)
    calls = [call for turn in plan.turns for call in turn.calls if call.owner == "plan"]
    executed = sum(plan.sections[call.section].num_ops for call in calls)

    def run() -> float:
        recorder.begin_step()
        executor.begin_micro_step()
        begun = time.perf_counter()
        for turn in plan.turns[:-1]:
            executor.run_turn(turn.module, turn.direction, turn.layer, bound)
        seconds = time.perf_counter() - begun
        executor.finish(bound)
        recorder.end_step()
        return seconds

    return run, executed, sum(section.num_ops for section in plan.sections.values())


def legacy_runner(path: Path) -> Runner:
    # Modules of the old checkout, which this one's types know nothing of.
    context, executors, kinds, timing, devices, plans = (
        importlib.import_module(f"fpdt.{name}")
        for name in ("context", "executor", "op_kinds", "timing", "devices", "plan")
    )
    plan: Any = plans.load_plan(path)
    runtime = devices.create_runtime("cpu", plan.arenas)
    recorder = timing.Recorder(runtime)
    executor = executors.Executor(plan, runtime, dict.fromkeys(kinds.KIND_STREAMS, nothing), recorder)
    anything: Any = None
    bound = context.Bound({}, anything, nothing, nothing, nothing)
    stages = plan.timeline()
    parts = [plan.sections[stage.section].parts[stage.part] for stage in stages]

    def run() -> float:
        recorder.begin_step()
        begun = time.perf_counter()
        for stage, part in zip(stages, parts, strict=True):
            layer = stage.segment * plan.segment_layers + part.layer_slot
            executor.run_part(stage.section, stage.part, segment=stage.segment, layer=layer, bound=bound)
        seconds = time.perf_counter() - begun
        recorder.end_step()
        return seconds

    executed = sum(part.end - part.start for part in parts)
    return run, executed, sum(len(section.ops) for section in plan.sections.values())


if __name__ == "__main__":
    main()
