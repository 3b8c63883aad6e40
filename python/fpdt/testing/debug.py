"""Checks that make a wrong plan or a wrong handler fail loudly: poisoned memory, storages that outlive their op.

Debug mode stands outside of what it checks: it wraps the table of handlers and hears of calls as they begin, so that
the loops that run a plan know nothing of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from fpdt.errors import StorageLeakError
from fpdt.measure.memory import LiveBytes, Made
from fpdt.plan import Call, Op, Plan, Section, Turn
from fpdt.run.arena import byte_range
from fpdt.run.context import Frame, Handler, Handlers, OpContext
from fpdt.run.program import EVALUATION_LOSS_SUM, LOSS_SUM
from fpdt.run.runtime import LinkedCall, Runtime

EXCHANGE_SETTLE_SECONDS = 5.0
"""How long a process group's own thread may hold on to the tensors of an exchange that is done."""

Instance = tuple[int, int]
"""(buffer id, instance)"""


class DebugMode:
    """Checks ops of a runtime, of which it is to be the only one.

    With `poison`, memory is filled with NaN (integers: about -2e15) where the plan says nobody may read: the arenas at
    the start of a micro-step, an instance of a `call` buffer after its last op of a call, one of a `step` buffer after
    the last call of a micro-step that uses it; every page of the arenas then counts as touched. Files are not poisoned.
    With `tracker`, every op is checked for storages that outlive it, and its own peak is kept.
    """

    def __init__(self, plan: Plan, runtime: Runtime, *, poison: bool = False, tracker: LiveBytes | None = None) -> None:
        self._runtime = runtime
        self._poisoner = Poisoner(plan, runtime) if poison else None
        self._leaks = LeakCheck(tracker, runtime.device.type) if tracker is not None else None
        if self._poisoner is not None:
            runtime.begin_call = self._poisoner.begin_call

    @property
    def scratch_by_kind(self) -> dict[str, int]:
        """Largest measured peak of bytes made inside an op, by kind; held against Op.scratch_bytes."""
        return self._leaks.scratch_by_kind if self._leaks else {}

    @property
    def scratch_by_op(self) -> dict[tuple[str, int], int]:
        """The same by (section, op id)."""
        return self._leaks.scratch_by_op if self._leaks else {}

    def wrap(self, handlers: Handlers) -> dict[str, Handler]:
        """The handlers, each of which is checked; to be given to the Executor."""
        return {kind: self._checked(handler) for kind, handler in handlers.items()}

    def begin_micro_step(self) -> None:
        """To be called before each: nothing written before survives it."""
        if self._poisoner:
            self._poisoner.begin(evaluates=False)

    def begin_evaluation(self) -> None:
        """To be called before each sequence that is evaluated, likewise."""
        if self._poisoner:
            self._poisoner.begin(evaluates=True)

    def _checked(self, handler: Handler) -> Handler:
        def check(ctx: OpContext, *views: Any) -> None:
            with self._leaks.around_op(ctx.op) if self._leaks else nullcontext():
                handler(ctx, *views)
            # Lifetimes end in the order of execution, which must then be that of the host.
            self._runtime.synchronize()
            if self._poisoner:
                self._poisoner.end_op(ctx)
                # The fill is on the op's own stream: nothing orders the next op of another stream behind it.
                self._runtime.synchronize()

        return check


class Poisoner:
    """Fills memory at the end of its lifetime, and only there: never before its last reader has run.

    Leftover work of a call may run during later ones, so each call counts for itself.
    """

    def __init__(self, plan: Plan, runtime: Runtime) -> None:
        self._plan = plan
        self._arenas = runtime.arenas
        self._training = self._step_ends(plan.turns)
        self._evaluation = self._step_ends(plan.evaluation_turns)
        self._ends = self._training
        self._number = 0

    def begin(self, evaluates: bool) -> None:
        self._ends, self._number = self._evaluation if evaluates else self._training, 0
        for arena in self._arenas.values():
            arena.poison()

    def begin_call(self, call: LinkedCall, frame: Frame) -> None:
        section = call.section.section
        number, self._number = self._number, self._number + 1
        left_out = call.section.left_out
        running = (op for op in section.make_ops() if op.id not in left_out)
        uses = Counter(item for op in running for item in self._instances(op, call.args))
        buffers = self._plan.buffers
        ends = frozenset(self._ends.get(number, ()))
        # By instance that dies in the call, the uses until then. Other buffers may lie at its address from then on,
        # though other ops of the call are still to come.
        frame.state = Counter(
            {item: count for item, count in uses.items() if buffers[item[0]].scope == "call" or item in ends}
        )

    def end_op(self, ctx: OpContext) -> None:
        left: Counter[Instance] = ctx.frame.state
        for item in self._instances(ctx.op, ctx.frame.args):
            if item in left:
                left[item] -= 1
                if left[item] == 0:
                    self._poison(item)

    def _step_ends(self, turns: Iterable[Turn]) -> dict[int, list[Instance]]:
        """Instances of step buffers by the number of the call of a program after which nobody uses them.

        The engine reads the sum of losses between turns: it lives until the end of the micro-step.
        """
        last: dict[Instance, int] = {}
        calls = [call for turn in turns for call in turn.calls if call.owner == "plan"]
        calls = [call for call in calls if not _is_external(self._plan.sections[call.section])]
        for number, call in enumerate(calls):
            section = self._plan.sections[call.section]
            last.update(dict.fromkeys(self._step_instances(section, call), number))
        ends: dict[int, list[Instance]] = {}
        for instance, number in last.items():
            if self._plan.buffers[instance[0]].name not in (LOSS_SUM, EVALUATION_LOSS_SUM):
                ends.setdefault(number, []).append(instance)
        return ends

    def _step_instances(self, section: Section, call: Call) -> Iterable[Instance]:
        columns = self._plan.columns
        for number in self._plan.extents(section).tolist():
            access = columns.access(number)
            if self._plan.buffers[access.buffer].scope == "step":
                yield access.buffer, access.instance(call.args)

    def _instances(self, op: Op, args: tuple[int, ...]) -> set[Instance]:
        return {(access.buffer, access.instance(args)) for access in op.accesses}

    def _poison(self, instance: Instance) -> None:
        buffer = self._plan.buffers[instance[0]]
        if buffer.pool in self._arenas:
            self._arenas[buffer.pool].poison(*byte_range(buffer, instance[1]))


def _is_external(section: Section) -> bool:
    return any(kind.external for kind in (section.kinds[n] for n in np.unique(section.columns.kind[section.rows])))


class LeakCheck:
    """Holds every op to its contract: what it makes, dies in it. Only emitGrads hands tensors on."""

    def __init__(self, tracker: LiveBytes, device: str) -> None:
        self._tracker = tracker
        # On a device autograd has a thread of its own, which lets go of tensors a moment after it is done.
        self._may_settle = device != "cpu"
        self.scratch_by_kind: dict[str, int] = {}
        self.scratch_by_op: dict[tuple[str, int], int] = {}

    @contextmanager
    def around_op(self, op: Op) -> Iterator[None]:
        settle = EXCHANGE_SETTLE_SECONDS if op.stream == "comm" or self._may_settle else 0.0
        with nullcontext() if self._tracker.active else self._tracker, self._tracker.scope(settle) as scope:
            yield
        self.scratch_by_kind[op.kind] = max(scope.peak_bytes, self.scratch_by_kind.get(op.kind, 0))
        key = (op.section.name, op.id)
        self.scratch_by_op[key] = max(scope.peak_bytes, self.scratch_by_op.get(key, 0))
        if scope.alive and op.kind != "emitGrads":
            raise _leak_error(op, scope.alive)


def _leak_error(op: Op, alive: list[Made]) -> StorageLeakError:
    total = sum(item.num_bytes for item in alive)
    makers = ", ".join(f"{item.num_bytes} bytes of {item.made_by}" for item in alive[:4])
    found = f"op {op.id} {op.kind} of {op.section.name} leaves {len(alive)} storages of {total} bytes alive: {makers}"
    return StorageLeakError(found, "copy results into the op's views, and drop every other reference before it returns")
