"""A few steps of a small plan through the worker itself, with the time of every op and of every kernel in its code.

What is measured is what runs: the worker's handlers on the plan's views, with the memory that they just used, all ranks
busy at once, DeepSpeed around them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fpdt.measure.timing import StepTimes
from fpdt.models.interpreter import LinkedCode
from fpdt.models.link import Env, Work
from fpdt.plan import Plan
from fpdt.run.runtime import Runtime
from fpdt.run.session import PlanSession

MIN_STEPS, MAX_STEPS = 2, 20
WARM_STEPS = 2
"""The first allocates; the second finds what the optimizer's first step left."""
MAX_MORE_WARM_STEPS = 4
WARM_SHARE = 0.25
"""Of the time, for steps that are not counted: ZeRO's and the allocator's first few take up to four times as long."""
ADAM = "adam"
LAYER_CODES = {
    "pre": "pre",
    "preQ": "pre_q",
    "preKv": "pre_kv",
    "post": "post",
    "postKeep": "post_keep",
    "postBwd": "post_bwd",
    "postBwdKept": "post_bwd_kept",
    "preBwd": "pre_bwd",
}

Numbers = dict[str, float]


def measure_plan(plan: Plan, seconds: float) -> Numbers:
    """Of a step, the median over steps: numbers by name.

    `op/SECTION/N` and `code/NAME/CLASS/N/ROWS` are the N-th op of a section and the N-th instruction of a code on so
    many rows, `kind/KIND` what ZeRO does, `adam` the optimizer inside ZeRO's step; each has /count and /seconds.
    `idle` and `step` are seconds.
    """
    deadline = time.perf_counter() + seconds
    with tempfile.TemporaryDirectory(prefix="fpdt-calibrate-") as folder:
        data = Path(folder) / "tokens.txt"
        tokens = torch.randint(0, 256, (2 * int(plan.run["seqLen"]) + 2,), generator=torch.Generator().manual_seed(0))
        data.write_bytes(bytes(tokens.tolist()))
        with closing(PlanSession(plan, _options(data), tracks_memory=False)) as session:
            times = _watched(session, plan)
            runtime = session.runtime
            warm = [_numbers(session, step, times) for step in range(WARM_STEPS)]
            left = deadline - time.perf_counter()
            num_warm = WARM_STEPS + _agreed(
                runtime, min(MAX_MORE_WARM_STEPS, int(WARM_SHARE * left / warm[-1]["step"]))
            )
            warm += [_numbers(session, step, times) for step in range(WARM_STEPS, num_warm)]
            left = deadline - time.perf_counter()
            num_steps = _agreed(runtime, min(MAX_STEPS, max(MIN_STEPS, round(left / warm[-1]["step"]))))
            steps = [_numbers(session, num_warm + step, times) for step in range(num_steps)]
    return {name: statistics.median(one.get(name, 0.0) for one in steps) for name in steps[0]}


class KernelTimes:
    """Time of instructions, and of whatever else is watched, by name, on the marks of a runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._spans: list[tuple[str, Any, Any]] = []

    def watch_code(self, name: str, code: LinkedCode) -> None:
        code.wrap(lambda number, work: self._timed_work(f"{name}/{number}", work))

    def watch_method(self, name: str, owner: Any, method: str) -> None:
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **keywords: Any) -> Any:
            start = self._runtime.mark()
            try:
                return inner(*args, **keywords)
            finally:
                self._spans.append((name, start, self._runtime.mark()))

        setattr(owner, method, timed)

    def take(self) -> Numbers:
        """Counts and seconds by name since the last call; the runtime has been synchronized."""
        seconds: defaultdict[str, float] = defaultdict(float)
        counts = Counter(name for name, _, _ in self._spans)
        for name, start, end in self._spans:
            seconds[name] += self._runtime.seconds_between(start, end)
        self._spans.clear()
        return _named(seconds, counts)

    def _timed_work(self, name: str, work: Work) -> Work:
        def timed(env: Env) -> None:
            # Rows of any view: they are all those of the op, or of its tile.
            rows = next(iter(env.values())).shape[0]
            start = self._runtime.mark()
            work(env)
            self._spans.append((f"{name}/{rows}", start, self._runtime.mark()))

        return timed


def _watched(session: PlanSession, plan: Plan) -> KernelTimes:
    times = KernelTimes(session.runtime)
    streamed = session.streamed
    for number, layer in enumerate(streamed.layers):
        for name, attribute in LAYER_CODES.items():
            times.watch_code(f"code/{name}/{plan.code.class_of[number]}", getattr(layer, attribute))
    ends = streamed.extra
    for name, code in (
        ("embed", ends.embed),
        ("embedBwd", ends.embed_bwd),
        ("head", ends.head.norm),
        ("headBwd", ends.head.norm_bwd),
    ):
        times.watch_code(f"code/{name}/0", code)
    # ZeRO's optimizers hold the one that updates the weights.
    optimizer: Any = session.optimizer
    times.watch_method(ADAM, getattr(optimizer, "optimizer", optimizer), "step")
    return times


def _numbers(session: PlanSession, step: int, kernels: KernelTimes) -> Numbers:
    _, times = session.time_step(step)
    found = {**kernels.take(), **_op_numbers(times), "idle": times.idle_seconds, "step": times.seconds}
    for kind, total in times.by_kind.items():
        found.update({f"kind/{kind}/count": float(total["count"]), f"kind/{kind}/seconds": float(total["seconds"])})
    return found


def _op_numbers(times: StepTimes) -> Numbers:
    seconds: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for op in times.ops:
        name = f"op/{op.section}/{op.op}"
        seconds[name] += op.duration
        counts[name] += 1
    return _named(seconds, counts)


def _named(seconds: Mapping[str, float], counts: Mapping[str, int]) -> Numbers:
    def pairs() -> Iterator[tuple[str, float]]:
        for name, value in seconds.items():
            yield f"{name}/seconds", value
            yield f"{name}/count", float(counts[name])

    return dict(pairs())


def _agreed(runtime: Runtime, wanted: int) -> int:
    """What the rank says that wants the least, and not below 0."""
    count = torch.tensor([max(0, wanted)], device=runtime.device)
    dist.all_reduce(count, op=dist.ReduceOp.MIN)
    return int(count[0])


def _options(data: Path) -> dict[str, Any]:
    """Of protocol.RunOptions: single ops of every layer are wanted."""
    nothing = dict.fromkeys(("weights", "export", "dump_grads", "copy_mode", "seed", "disk_folder", "disk_direct"))
    return {**nothing, "data": str(data), "poison": False, "record_layers": 1, "trace_steps": [], "trace_folder": None}
