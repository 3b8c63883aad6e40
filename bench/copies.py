"""Host time of copies: the native engine against the event path, over the calls of one micro-step, memcpy left out.

    npm run bench:copies -- --json
    PYTHONPATH=python .venv/bin/python bench/copies.py plan.json

Microseconds of CPU time per copy op of a plan; without one, that of `npm run bench:host`. `events`: the CUDA runtime's
loop over the copies alone, streams and events being methods that count and return, tensors on PyTorch's meta device:
what PyTorch and Python do, and nothing of the driver. What other ops wait and record for copies is not in it. `engine`:
the Python calls (the one a call of the program, and all waits and signals of other ops for copies), and the native
threads; over a device that does nothing, and over the CPU twin, whose threads wait for each other for real. Every
repeat measures each once; the median counts. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from host import ALWAYS, PLAN, NoWeights, make_plan, nothing

from fpdt.copies import CopyEngine, LoweredSection, lower
from fpdt.devices import CudaRuntime
from fpdt.ops.moves import copy
from fpdt.plan import OP_KINDS, Call, Plan, load_plan
from fpdt.run.arena import Arena
from fpdt.run.context import Bound
from fpdt.run.executor import Executor
from fpdt.testing.copy_replay import owned_streams
from fpdt.testing.fake_cuda.null import null_device

REPEATS = 7
TARGET_MICROSECONDS = 1.5
NOWHERE = 1 << 40
"""An address that nobody touches."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("plan", type=Path, nargs="?", help="plan.json; default: a mid-sized one, made now")
    parser.add_argument("--json", action="store_true", help="print JSON, as always: for the sake of a common habit")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="measurements, of which the median counts")
    args = parser.parse_args()
    if args.plan is not None and not args.plan.is_file():
        parser.error(f"there is no plan {args.plan}: make one with `fpdt plan ... --output`, or give none")
    if args.repeats < 1:
        parser.error(f"--repeats: expected a whole number of at least 1, found {args.repeats}")
    with tempfile.TemporaryDirectory() as folder:
        plan = load_plan(args.plan or make_plan(Path(folder)))
    print(json.dumps(measure(plan, PLAN if args.plan is None else str(args.plan), args.repeats)))


def measure(plan: Plan, name: str, repeats: int) -> dict[str, Any]:
    calls = [call for turn in plan.turns for call in turn.calls if call.owner == "plan"]
    ways: dict[str, Callable[[], dict[str, float]]] = {
        "events": event_path(plan, calls),
        "engine": native_engine(plan, calls, "null", ()),
        "twin": native_engine(plan, calls, "threads", (0, 0, 0, 0)),
    }
    num_copies, num_pieces = sizes(plan, calls)
    seconds: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for way in ways.values():
        way()
    for _ in range(repeats):
        for key, way in ways.items():
            seconds[key].append(way())
    found = {key: summary(of_way, num_copies) for key, of_way in seconds.items()}
    return {
        "kind": "copiesBench",
        "plan": name,
        "calls": len(calls),
        "copies": num_copies,
        "pieces": num_pieces,
        **found,
        "targetMicroseconds": TARGET_MICROSECONDS,
        "withinTarget": found["engine"]["microsecondsPerCopy"] <= TARGET_MICROSECONDS,
        "timesLess": round(found["events"]["microsecondsPerCopy"] / found["engine"]["microsecondsPerCopy"], 1),
    }


def summary(seconds: list[dict[str, float]], num_copies: int) -> dict[str, Any]:
    totals = [1e6 * sum(item.values()) / num_copies for item in seconds]
    parts = {
        f"{part}Microseconds": round(statistics.median(1e6 * item[part] / num_copies for item in seconds), 3)
        for part in seconds[0]
    }
    return {"microsecondsPerCopy": round(statistics.median(totals), 3), **parts, "all": [round(x, 3) for x in totals]}


def sizes(plan: Plan, calls: list[Call]) -> tuple[int, int]:
    """Copy ops of a micro-step, and the blocks of bytes in them."""
    lowered = lower_all(plan)
    ran = [lowered[call.section] for call in calls if call.section in lowered]
    return sum(len(item.ops) for item in ran), sum(len(item.pieces) for item in ran)


def lower_all(plan: Plan) -> dict[str, LoweredSection]:
    arenas, owned = [pool.name for pool in plan.header.pools if pool.kind != "file"], owned_streams(plan)
    sections = [section for section in plan.sections.values() if not OP_KINDS[next(section.make_ops()).kind].external]
    return {section.name: lower(section, owned, arenas) for section in sections}


def event_path(plan: Plan, calls: list[Call]) -> Callable[[], dict[str, float]]:
    """Over the ops of each section that are copies, in the order in which the runtime launches them."""
    ALWAYS.enter_context(null_device(Counter()))
    pools = [pool for pool in plan.header.pools if pool.kind != "file"]
    arenas = {pool.name: Arena(pool.name, torch.empty(pool.bytes, dtype=torch.uint8, device="meta")) for pool in pools}
    runtime = CudaRuntime(arenas, {}, plan.streams, frozenset())
    recorder = runtime.make_recorder(plan.kind_names, 0)
    recorder.begin_step(times_ops=False)
    executor = Executor(plan, runtime, {**dict.fromkeys(OP_KINDS, nothing), "copy": copy}, recorder)
    anything: Any = None
    bound = Bound([anything] * plan.num_layers, anything, NoWeights(), nothing)
    linked = [call for turn in executor._training for call in turn.calls if not call.section.external]
    owned = frozenset(owned_streams(plan))
    for section in {call.section.name: call.section for call in linked}.values():
        rows = runtime._launches_of(section).rows
        rows[:] = [row for row in rows if row[3] in owned]

    def run() -> dict[str, float]:
        begun = time.process_time()
        for call in linked:
            call.section.bind(call.args)
        bound_at = time.process_time()
        for call in linked:
            runtime.run_call(call, bound, recorder)
        # Views are bound for ops of all kinds: in neither way is that counted.
        return {"python": (time.process_time() - bound_at) - (bound_at - begun)}

    return run


def native_engine(
    plan: Plan, calls: list[Call], device: str, options: tuple[int, ...]
) -> Callable[[], dict[str, float]]:
    lowered, owned = lower_all(plan), owned_streams(plan)
    arenas = [(NOWHERE, pool.bytes) for pool in plan.header.pools if pool.kind != "file"]
    engine = CopyEngine(device, len(plan.streams), owned, arenas, options)
    ALWAYS.callback(engine.close)
    programs = {name: engine.load(section) for name, section in lowered.items()}
    others = {name: others_of(plan, name, section) for name, section in lowered.items()}

    def run() -> dict[str, float]:
        native = -native_seconds(engine, owned)
        begun = time.thread_time()
        for call in calls:
            if call.section not in programs:
                continue
            bases = engine.run(programs[call.section], call.args, call.waits)
            for waits, write in others[call.section]:
                for stream, position in waits:
                    engine.wait(stream, bases[stream] + position)
                if write is not None:
                    engine.write(write[0], bases[write[0]] + write[1])
        python = time.thread_time() - begun
        engine.join()
        return {"python": python, "native": native + native_seconds(engine, owned)}

    return run


Other = tuple[tuple[tuple[int, int], ...], tuple[int, int] | None]
"""What an op that is no copy waits for and signals, (stream, position) each."""


def others_of(plan: Plan, name: str, section: LoweredSection) -> list[Other]:
    """Ops of other streams that have to do with copies, and the end of each of those streams."""
    of_section = plan.sections[name]
    streams = of_section.columns.stream[of_section.rows].tolist()
    owned = frozenset(section.owned)
    found: list[Other] = []
    for op, stream in enumerate(streams):
        waits = tuple((wait.stream, wait.position) for wait in section.waits_of.get(op, ()))
        signals = op in section.signalled
        if op not in owned and (waits or signals):
            found.append((waits, (stream, section.positions[op]) if signals else None))
    ends = [(stream, section.ends[stream]) for stream in sorted(set(streams) - {streams[op] for op in owned})]
    return [*found, *(((), end) for end in ends)]


def native_seconds(engine: CopyEngine, owned: tuple[int, ...]) -> float:
    return sum(engine.stats(place).cpu_nanoseconds for place in owned) / 1e9


if __name__ == "__main__":
    main()
