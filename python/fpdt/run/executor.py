"""Executes the parts of a plan: a table from op kind to handler and a loop. It decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from fpdt.errors import PlanError, ScheduleError
from fpdt.measure.timing import Recorder
from fpdt.plan import Op, Part, Plan, Stage
from fpdt.plan.op_kinds import EXTERNAL_KINDS
from fpdt.run.arena import BufferViews
from fpdt.run.context import Bound, Handler, OpContext
from fpdt.run.runtime import Runtime
from fpdt.testing.debug import DebugMode

_BY_ENGINE: Mapping[str, Handler] = {
    "gather": lambda context: context.bound.gather(context.op.layer_slot),
    "release": lambda context: context.bound.release(context.op.layer_slot),
    "loadBatch": lambda context: context.bound.load_batch(),
}


class Executor:
    """Runs one part at a time with the handlers it is given. Raises PlanError for a kind without a handler."""

    def __init__(
        self,
        plan: Plan,
        runtime: Runtime,
        handlers: Mapping[str, Handler],
        recorder: Recorder,
        debug: DebugMode | None = None,
    ) -> None:
        self._plan = plan
        self._runtime = runtime
        self._handlers = {**handlers, **_BY_ENGINE}
        self._recorder = recorder
        self._debug = debug
        self._views = BufferViews(plan, runtime.arenas)
        self._running: Stage | None = None
        _check_handlers(plan, self._handlers)

    def buffer(self, name: str, instance: int = 0) -> Tensor:
        """All rows of a buffer, for the engine: to be used between parts, or by `load_batch`."""
        return self._views.whole(name, instance)

    def begin_step(self) -> None:
        """To be called before the first part of a step; with poison on, nothing written before survives it."""
        if self._debug:
            self._debug.begin_step()

    def run_part(self, section_name: str, part_index: int, *, segment: int, layer: int, bound: Bound) -> None:
        """Run all ops of a part and join its streams. `layer` is the decoder layer of the part's own slot.

        An error of a handler is raised as it is, with a note that names the op.
        """
        stage = Stage(section_name, part_index, segment)
        part = self._plan.sections[section_name].parts[part_index]
        self._check_stage(stage, part, layer)
        self._running = stage
        try:
            with torch.no_grad():
                self._run_ops(stage, part, bound)
        except BaseException:
            self._runtime.abandon_part()
            raise
        finally:
            self._running = None

    def _run_ops(self, stage: Stage, part: Part, bound: Bound) -> None:
        ops = self._plan.sections[stage.section].ops[part.start : part.end]
        if self._debug:
            self._debug.begin_part(stage)
        self._runtime.begin_part(ops)
        for op in ops:
            launch = self._runtime.run_external if op.kind in EXTERNAL_KINDS else self._runtime.launch
            launch(op, lambda op=op: self._execute(op, stage, bound))  # type: ignore[misc]
        self._runtime.finish_part()
        if self._debug:
            self._debug.end_part(stage)

    def _execute(self, op: Op, stage: Stage, bound: Bound) -> None:
        handler = self._handlers[op.kind]
        try:
            with self._checked(op, stage), self._timed(op, stage):
                handler(self._context(op, stage, bound))
        except Exception as error:
            error.add_note(f"in {self._describe(op, stage)}")
            raise

    def _context(self, op: Op, stage: Stage, bound: Bound) -> OpContext:
        reads, writes, accumulates = (
            self._views.resolve(op, group, stage.segment) for group in (op.reads, op.writes, op.accumulates)
        )
        return OpContext(op, reads, writes, accumulates, self._runtime, bound)

    def _checked(self, op: Op, stage: Stage) -> AbstractContextManager[None]:
        return self._debug.around_op(stage.section, op, stage.segment) if self._debug else nullcontext()

    def _timed(self, op: Op, stage: Stage) -> AbstractContextManager[None]:
        num_bytes = sum((item.end - item.start) * self._plan.buffers[item.buffer].row_bytes for item in op.reads)
        return self._recorder.op(op.kind, stage.section, self._layer_of(op, stage), op.id, op.stream, num_bytes)

    def _layer_of(self, op: Op, stage: Stage) -> int:
        return stage.segment * self._plan.segment_layers + op.layer_slot

    def _describe(self, op: Op, stage: Stage) -> str:
        views = " ".join(map(self._plan.access_text, op.accesses))
        return f"op {op.id} {op.kind} of {stage.section}, layer {self._layer_of(op, stage)}: {views}"

    def _check_stage(self, stage: Stage, part: Part, layer: int) -> None:
        if self._running is not None:
            raise ScheduleError(f"{stage} was asked for while {self._running} runs; parts do not nest")
        expected = stage.segment * self._plan.segment_layers + part.layer_slot
        if stage.section.startswith("layer") and layer != expected:
            raise ScheduleError(f"{stage} is part of layer {expected}, asked to run for layer {layer}")
        if stage.section == "stepEnd":
            raise ScheduleError("stepEnd is external: the engine does it under Recorder.timed")


def _check_handlers(plan: Plan, handlers: Mapping[str, Handler]) -> None:
    sections = (section for section in plan.sections.values() if section.name != "stepEnd")
    missing = sorted({op.kind for section in sections for op in section.ops} - handlers.keys())
    if missing:
        hint = "install the npm and the Python package in the same version"
        raise PlanError(f"no handler for the op kinds {', '.join(missing)}", hint)
