"""Host time of the run loop: microseconds per executed op of a plan's micro-step, with empty handlers.

    npm run bench:host -- --json
    PYTHONPATH=python .venv/bin/python bench/host.py plan.json
    PYTHONPATH=python .venv/bin/python bench/host.py plan.json --legacy CHECKOUT --legacy-plan old.plan.json

Telemetry as in a run (totals by kind, no records). Without a plan, one of Llama-3-8B on 8 GPUs is made. `cpu` is eager
CPU mode; `null` the CUDA runtime over streams and events whose methods count and return, with its calls of them an op:
of `plain` steps, of `timed` ones, in which every op has a time of its own, and of the mean step of a long run, in which
one in `stepsPerTimed` is timed. Seconds are the process's own CPU time. Every repeat runs all calls of a micro-step;
the result is the median of the repeats. With --legacy an old checkout (plan version 1) is measured in turn with this,
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
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

REPEATS = 5
PLAN = "--model examples/llama-3-8b.json --gpus 8 --gpu h100-80gb --seq-len 1M --policy fpdt --chunks 16"
ALWAYS = ExitStack()
"""What a measuring process keeps to its end."""
HERE = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("plan", type=Path, nargs="?", help="plan.json of version 2; default: a mid-sized one, made now")
    parser.add_argument("--json", action="store_true", help="print JSON, as always: for the sake of a common habit")
    parser.add_argument("--legacy", type=Path, help="checkout whose plans have version 1")
    parser.add_argument("--legacy-plan", type=Path, help="plan.json made by that checkout")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="measurements, of which the median counts")
    parser.add_argument("--serve", choices=["cpu", "null", "legacy"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        serve(args.plan, args.serve)
        return
    if args.plan is not None and not args.plan.is_file():
        parser.error(f"there is no plan {args.plan}: make one with `fpdt plan ... --output`, or give none")
    if args.repeats < 1:
        parser.error(f"--repeats: expected a whole number of at least 1, found {args.repeats}")
    if (args.legacy is None) != (args.legacy_plan is None):
        parser.error("give --legacy and --legacy-plan together")
    with tempfile.TemporaryDirectory() as folder:
        measure(args, args.plan or make_plan(Path(folder)))


def measure(args: argparse.Namespace, plan: Path) -> None:
    servers = {device: start(HERE, plan, device) for device in ("cpu", "null")}
    if args.legacy is not None:
        servers["legacy"] = start(args.legacy, args.legacy_plan, "legacy")
    facts = {name: json.loads(readline(server)) for name, server in servers.items()}
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for _ in range(args.repeats):
        for name, server in servers.items():
            assert server.stdin is not None
            print("run", file=server.stdin, flush=True)
            seconds[name].append(json.loads(readline(server)))
    for server in servers.values():
        server.communicate()
    found = {name: summary(facts[name], seconds[name]) for name in servers}
    print(json.dumps({"kind": "hostBench", "plan": PLAN if args.plan is None else str(args.plan), **found}))


def make_plan(folder: Path) -> Path:
    loader = HERE / "node_modules/tsx/dist/esm/index.mjs"
    planner = ["node", "--import", str(loader), str(HERE / "src/cli/main.ts"), "plan", *PLAN.split()]
    done = subprocess.run([*planner, "--output", str(folder / "plan.json")], cwd=HERE, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return folder / "plan.json"


def summary(facts: dict[str, Any], seconds: list[dict[str, float]]) -> dict[str, Any]:
    """`facts` has under the name of a way to run a step what is known of it."""
    ways = {name: facts.pop(name) for name in seconds[0]}
    for name, way in ways.items():
        per_op = [1e6 * item[name] / facts["executedOps"] for item in seconds]
        way.update(microsecondsPerOp=round(statistics.median(per_op), 3), all=[round(item, 3) for item in per_op])
    if "timed" not in ways:
        return {**facts, **ways["plain"]}
    every = facts["stepsPerTimed"]
    means = {
        name: round((ways["plain"][name] * (every - 1) + ways["timed"][name]) / every, 3)
        for name in ("microsecondsPerOp", "streamCallsPerOp")
    }
    return {**facts, **means, **ways}


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
    """Answers facts of the plan, and then to every line the seconds of a micro-step, by the way to run it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    run, executed, num_ops, calls = legacy_runner(plan) if api == "legacy" else new_runner(plan, api)
    facts: dict[str, Any] = {
        "ops": num_ops,
        "executedOps": executed,
        "linkSeconds": round(time.perf_counter() - started, 3),
        "linkMiB": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
    }
    ways = {"plain": False} if calls is None else {"plain": False, "timed": True}
    for name, times_ops in ways.items():
        run(times_ops)
        facts[name] = {}
        if calls is not None:
            calls.clear()
            run(times_ops)
            facts[name] = calls_per_op(calls, executed)
    if calls is not None:
        facts["stepsPerTimed"] = steps_per_timed()
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        print(json.dumps({name: run(times_ops) for name, times_ops in ways.items()}), flush=True)


def calls_per_op(calls: Counter[str], executed: int) -> dict[str, Any]:
    per_op = {name: round(count / executed, 3) for name, count in sorted(calls.items())}
    return {"streamCallsPerOp": round(sum(calls[name] for name in STREAM_CALLS) / executed, 3), "callsPerOp": per_op}


def steps_per_timed() -> int:
    from fpdt.measure.sampling import OPS_EVERY

    return OPS_EVERY


Runner = tuple[Callable[[bool], float], int, int, Counter[str] | None]
"""Runs a micro-step, its ops timed or not, and answers its seconds; executed ops, ops of the plan, and calls of streams
and events."""
STREAM_CALLS = ("record", "set_stream", "wait_event", "wait_stream")


def nothing(*_: Any) -> None:
    """An empty handler."""


class NoWeights:
    """Weights that are always whole."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return nothing


def new_runner(path: Path, device: str) -> Runner:
    from fpdt.plan import OP_KINDS, load_plan
    from fpdt.run.context import Bound
    from fpdt.run.executor import Executor

    plan = load_plan(path)
    runtime, counted = make_runtime(plan, device)
    recorder = runtime.make_recorder(plan.kind_names, 0)
    executor = Executor(plan, runtime, dict.fromkeys(OP_KINDS, nothing), recorder)
    anything: Any = None
    bound = Bound([anything] * plan.num_layers, anything, NoWeights(), nothing)
    calls = [call for turn in plan.turns for call in turn.calls if call.owner == "plan"]
    executed = sum(plan.sections[call.section].num_ops for call in calls)

    def run(times_ops: bool) -> float:
        recorder.begin_step(times_ops=times_ops)
        executor.begin_micro_step()
        begun = time.process_time()
        for turn in plan.turns[:-1]:
            executor.run_turn(turn.module, turn.direction, turn.layer, bound)
        seconds = time.process_time() - begun
        executor.finish(bound)
        recorder.end_step()
        return seconds

    return run, executed, sum(section.num_ops for section in plan.sections.values()), counted


def make_runtime(plan: Any, device: str) -> tuple[Any, Counter[str] | None]:
    """Whatever device the plan is for: arenas are mapped, and empty handlers touch none of their pages."""
    from fpdt.devices import CudaRuntime, create_runtime
    from fpdt.run.arena import mapped_arena
    from fpdt.testing.fake_cuda.null import null_device

    if device == "cpu":
        return create_runtime("cpu", plan.header.pools, streams=plan.streams, links=plan.header.links), None
    calls: Counter[str] = Counter()
    ALWAYS.enter_context(null_device(calls))
    arenas = {pool.name: mapped_arena(pool.name, pool.bytes) for pool in plan.header.pools if pool.kind != "file"}
    return CudaRuntime(arenas, {}, plan.streams, frozenset()), calls


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

    def run(times_ops: bool) -> float:
        del times_ops  # They always are.
        recorder.begin_step()
        begun = time.process_time()
        for stage, part in zip(stages, parts, strict=True):
            layer = stage.segment * plan.segment_layers + part.layer_slot
            executor.run_part(stage.section, stage.part, segment=stage.segment, layer=layer, bound=bound)
        seconds = time.process_time() - begun
        recorder.end_step()
        return seconds

    executed = sum(part.end - part.start for part in parts)
    return run, executed, sum(len(section.ops) for section in plan.sections.values()), None


if __name__ == "__main__":
    main()
