"""Executes the turns of a plan's programs, in their order and no other. It decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
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
        self._training = self._link(plan.turns)
        self._evaluation = self._link(plan.evaluation_turns)
        self._turns = self._training
        """Of the program that runs."""
        self._next = -1
        """The turn that is due; -1 before the first micro-step and after an error."""
        self._running: Turn | None = None

    def buffer(self, name: str, instance: int = 0) -> Tensor:
        """All rows of a buffer, for the engine: to be used between turns."""
        return self._views.whole(name, instance)

    def begin_micro_step(self) -> None:
        """To be called before a forward. What a micro-step that was not finished left behind never runs."""
        self._begin(self._training)

    def begin_evaluation(self) -> None:
        """To be called before the forward of a sequence, between two optimizer steps: the arenas keep nothing.

        Raises ScheduleError for a plan without a program that evaluates.
        """
        if not self._evaluation:
            raise ScheduleError("the plan has no program that evaluates", "plan with --evaluate")
        self._begin(self._evaluation)

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

    def _link(self, turns: Sequence[Turn]) -> list[LinkedTurn]:
        return [LinkedTurn(turn, _link_calls(turn, self._sections)) for turn in turns]

    def _begin(self, turns: list[LinkedTurn]) -> None:
        if self._next >= 0 and all(linked.turn.module == "end" for linked in self._turns[self._next :]):
            self._join()
        else:
            self._runtime.abandon()
        self._turns, self._next = turns, 0

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
        due = self._turns[self._next] if self._next < len(self._turns) else None
        if due is not None and due.turn.name == asked:
            return due
        is_next = "an evaluation is over" if due is None else f"the plan's next turn is {due.turn.name}"
        found = f"{asked} was asked for; {is_next}"
        if due is not None and asked == self._turns[0].turn.name:
            hint = "run the backward of the last forward, or begin another micro-step, before this forward"
            raise StaleBackwardError(f"a second forward before the backward of the first: {found}", hint)
        raise ScheduleError(found, "run the modules of the model in their order, each once")


def _link_calls(turn: Turn, sections: dict[str, LinkedSection]) -> tuple[LinkedCall, ...]:
    return tuple(
        LinkedCall(sections[call.section], call.args, call.layer, call.waits)
        for call in turn.calls
        if call.owner == "plan"
    )
