"""Checks that make a wrong plan or a wrong handler fail loudly: poisoned memory, storages that outlive their op."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from fpdt.errors import StorageLeakError
from fpdt.measure.memory import LiveBytes, Made
from fpdt.plan import Op, Plan, Stage
from fpdt.plan.op_kinds import EXTERNAL_KINDS
from fpdt.run.arena import BufferViews
from fpdt.run.runtime import Runtime

EXCHANGE_SETTLE_SECONDS = 5.0
"""How long a process group's own thread may hold on to the tensors of an exchange that is done."""

Instance = tuple[int, int]
"""(buffer id, instance)"""


class DebugMode:
    """What the executor calls around ops and parts when something is to be checked.

    With `poison`, memory is filled with NaN (integers: about -2e15) where the plan says nobody may read: the arenas at
    the start of a step, a section buffer after its last op in a part, a step buffer after the last part of a
    micro-step that uses it; every page of the arenas then counts as touched. With `tracker`, every op is checked for
    storages that outlive it, and its own peak is kept.
    """

    def __init__(self, plan: Plan, runtime: Runtime, *, poison: bool = False, tracker: LiveBytes | None = None) -> None:
        self._runtime = runtime
        self._poisoner = Poisoner(plan, runtime) if poison else None
        self._leaks = LeakCheck(tracker) if tracker is not None else None

    @property
    def scratch_by_kind(self) -> dict[str, int]:
        """Largest measured peak of bytes made inside an op, by kind; held against Op.scratch_bytes."""
        return self._leaks.scratch_by_kind if self._leaks else {}

    @property
    def scratch_by_op(self) -> dict[tuple[str, int], int]:
        """The same by (section, op id)."""
        return self._leaks.scratch_by_op if self._leaks else {}

    def begin_step(self) -> None:
        if self._poisoner:
            self._poisoner.begin_step()

    def begin_part(self, stage: Stage) -> None:
        if self._poisoner:
            self._poisoner.begin_part(stage)

    @contextmanager
    def around_op(self, section: str, op: Op, segment: int) -> Iterator[None]:
        """To be entered where the op runs; raises StorageLeakError when the op leaves storages behind."""
        with self._leaks.around_op(section, op) if self._leaks else nullcontext():
            yield
        # Lifetimes end in the order of execution, which must then be that of the host.
        self._runtime.synchronize()
        if self._poisoner:
            self._poisoner.end_op(op, segment)

    def end_part(self, stage: Stage) -> None:
        if self._poisoner:
            self._poisoner.end_part(stage)


class Poisoner:
    """Fills memory at the end of its lifetime, and only there: never before its last reader has run."""

    def __init__(self, plan: Plan, runtime: Runtime) -> None:
        self._plan = plan
        self._arenas = runtime.arenas
        self._views = BufferViews(plan, runtime.arenas)
        self._timeline = plan.timeline()
        self._ends = self._step_ends()
        self._remaining: Counter[Instance] = Counter()

    def begin_step(self) -> None:
        for arena in self._arenas.values():
            arena.poison()

    def begin_part(self, stage: Stage) -> None:
        uses = (instance for op in self._ops(stage) for instance in self._instances(op, stage.segment))
        self._remaining = Counter(item for item in uses if self._plan.buffers[item[0]].scope == "section")

    def end_op(self, op: Op, segment: int) -> None:
        for instance in self._instances(op, segment):
            if instance in self._remaining:
                self._remaining[instance] -= 1
                if self._remaining[instance] == 0:
                    self._poison(instance)

    def end_part(self, stage: Stage) -> None:
        for instance in self._ends.get(stage, ()):
            self._poison(instance)

    def _step_ends(self) -> dict[Stage, list[Instance]]:
        """Step buffers by the stage after which nobody reads them.

        A buffer of several instances ends instance by instance. One of a single instance may be read by the engine
        between parts (lossSum is), so it lives until the last part of its last section.
        """
        step_buffers = {buffer.id: buffer for buffer in self._plan.buffers if buffer.scope == "step"}
        last: dict[Instance, Stage] = {}
        for stage in self._timeline:
            touched = (item for op in self._ops(stage) for item in self._instances(op, stage.segment))
            whole = ((x.id, 0) for x in step_buffers.values() if x.instances == 1 and stage.section in x.sections)
            last.update((item, stage) for item in (*touched, *whole) if item[0] in step_buffers)
        ends: dict[Stage, list[Instance]] = {}
        for instance, stage in last.items():
            ends.setdefault(stage, []).append(instance)
        return ends

    def _ops(self, stage: Stage) -> tuple[Op, ...]:
        section = self._plan.sections[stage.section]
        part = section.parts[stage.part]
        return section.ops[part.start : part.end]

    def _instances(self, op: Op, segment: int) -> set[Instance]:
        return {(access.buffer, self._plan.instance(op, access, segment)) for access in op.accesses}

    def _poison(self, instance: Instance) -> None:
        buffer = self._plan.buffers[instance[0]]
        self._arenas[buffer.pool].poison(*self._views.byte_range(buffer, instance[1]))


class LeakCheck:
    """Holds every op to its contract: what it makes, dies in it. Only emitGrads hands tensors on."""

    def __init__(self, tracker: LiveBytes) -> None:
        self._tracker = tracker
        self.scratch_by_kind: dict[str, int] = {}
        self.scratch_by_op: dict[tuple[str, int], int] = {}

    @contextmanager
    def around_op(self, section: str, op: Op) -> Iterator[None]:
        if op.kind in EXTERNAL_KINDS:
            yield
            return
        settle = EXCHANGE_SETTLE_SECONDS if op.stream == "comm" else 0.0
        with nullcontext() if self._tracker.active else self._tracker, self._tracker.scope(settle) as scope:
            yield
        self.scratch_by_kind[op.kind] = max(scope.peak_bytes, self.scratch_by_kind.get(op.kind, 0))
        key = (section, op.id)
        self.scratch_by_op[key] = max(scope.peak_bytes, self.scratch_by_op.get(key, 0))
        if scope.alive and op.kind != "emitGrads":
            raise _leak_error(section, op, scope.alive)


def _leak_error(section: str, op: Op, alive: list[Made]) -> StorageLeakError:
    total = sum(item.num_bytes for item in alive)
    makers = ", ".join(f"{item.num_bytes} bytes of {item.made_by}" for item in alive[:4])
    found = f"op {op.id} {op.kind} of {section} leaves {len(alive)} storages of {total} bytes alive: {makers}"
    return StorageLeakError(found, "copy results into the op's views, and drop every other reference before it returns")
