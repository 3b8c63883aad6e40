"""Executes the turns of a plan's program, in its order and no other. It decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fpdt.attention import Documents
from fpdt.errors import ScheduleError
from fpdt.measure.timing import Recorder
from fpdt.plan import Plan, Turn, turn_name
from fpdt.run.arena import Views
from fpdt.run.context import Bound, Handlers
from fpdt.run.link import LinkedSection, link_sections
from fpdt.run.runtime import LinkedCall, Runtime


class StaleBackwardError(ScheduleError, RuntimeError):
    """A second forward before the backward of the first, or a second backward: the arenas hold one micro-step."""


@dataclass(frozen=True, slots=True)
class LinkedTurn:
    """What the worker runs of a turn: the calls that are the plan's own."""

    turn: Turn
    calls: tuple[LinkedCall, ...]


class Executor:
    """Runs one turn at a time with the handlers it is given. Raises PlanError for a kind without a handler."""

    def __init__(self, plan: Plan, runtime: Runtime, handlers: Handlers, recorder: Recorder) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self._views = Views(plan, runtime.arenas)
        self._sections = link_sections(plan, runtime, self._views, handlers)
        self._turns = [LinkedTurn(turn, _link_calls(turn, self._sections)) for turn in plan.turns]
        self._end = len(self._turns) - 1
        self._next = -1
        """The turn that is due; -1 before the first micro-step and after an error."""
        self._running: Turn | None = None

    def buffer(self, name: str, instance: int = 0) -> Tensor:
        """All rows of a buffer, for the engine: to be used between turns."""
        return self._views.whole(name, instance)

    def begin_micro_step(self) -> None:
        """To be called before a forward. What a micro-step that was not finished left behind never runs."""
        if self._next == self._end:
            self._join()
        else:
            self._runtime.abandon()
        self._next = 0

    def begin_documents(self, documents: Documents) -> None:
        """To be called in a micro-step before its first turn: ops between documents do nothing in it."""
        for section in self._sections.values():
            section.leave_out(documents)

    def run_turn(self, module: str, direction: str, layer: int | None, bound: Bound) -> None:
        """Run the calls of the turn that is due, and join compute with the caller.

        Raises ScheduleError when another turn is due (StaleBackwardError for a second forward). An error of a handler
        is raised as it is, with a note that names the op; the next turn is then that of a new micro-step.
        """
        linked = self._due(turn_name(module, direction, layer))
        self._run(linked, bound)
        self._next += 1

    def finish(self, bound: Bound) -> None:
        """The end of a step: every stream joined, then what the plan runs there."""
        linked = self._due(turn_name("end", "forward", None))
        self._join()
        self._run(linked, bound)

    def _join(self) -> None:
        with torch.no_grad():
            self._runtime.join()

    def _run(self, linked: LinkedTurn, bound: Bound) -> None:
        runtime = self._runtime
        self._running = linked.turn
        try:
            with torch.no_grad():
                runtime.begin_turn()
                for call in linked.calls:
                    if call.section.external:
                        self._run_external(call, bound)
                    else:
                        if call.layer is not None:
                            bound.weights.acquire(call.layer)
                        runtime.run_call(call, bound, self._recorder)
                runtime.end_turn()
            self._recorder.flush()
        except BaseException:
            self._next = -1
            runtime.abandon()
            bound.weights.abandon()
            raise
        finally:
            self._running = None

    def _run_external(self, call: LinkedCall, bound: Bound) -> None:
        layer = call.layer
        for kind in call.section.external:
            with self._recorder.timed(kind):
                if layer is not None and kind == "gather":
                    self._runtime.before_gather()
                    bound.weights.gather(layer)
                elif layer is not None and kind == "release":
                    self._runtime.before_release()
                    bound.weights.release(layer)
                elif kind == "optimizerStep":
                    bound.optimizer_step()

    def _due(self, asked: str) -> LinkedTurn:
        if self._running is not None:
            raise ScheduleError(f"{asked} was asked for while {self._running.name} runs; turns do not nest")
        if self._next < 0:
            raise ScheduleError(f"{asked} was asked for outside a micro-step", "call begin_micro_step before a forward")
        due = self._turns[self._next]
        if due.turn.name == asked:
            return due
        found = f"{asked} was asked for; the plan's next turn is {due.turn.name}"
        if asked == self._turns[0].turn.name:
            hint = "run the backward of the last forward, or begin another micro-step, before this forward"
            raise StaleBackwardError(f"a second forward before the backward of the first: {found}", hint)
        raise ScheduleError(found, "run the modules of the model in their order, each once")


def _link_calls(turn: Turn, sections: dict[str, LinkedSection]) -> tuple[LinkedCall, ...]:
    return tuple(
        LinkedCall(sections[call.section], call.args, call.layer, call.waits)
        for call in turn.calls
        if call.owner == "plan"
    )
