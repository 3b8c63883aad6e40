"""Checks of the step program: turns in the order autograd runs them, calls whose arguments name what exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fpdt.plan.check_ops import ArgBounds, arg_bounds
from fpdt.plan.columns import require
from fpdt.plan.header import Header
from fpdt.plan.nouns import Call, Turn, turn_name
from fpdt.plan.op_kinds import OP_KINDS
from fpdt.plan.sections import Section

RUN_BY_PLAN = ("gather", "release", "optimizerStep")
"""External kinds that a call of the plan's own may ask the engine for."""


def check_program(header: Header, sections: Mapping[str, Section]) -> None:
    """Raises PlanError naming the first turn or call at fault."""
    known = {name: _Facts(section) for name, section in sections.items()}
    train, evaluate = header.programs.train, header.programs.evaluate
    _check_turns(header, train.turns, turn_names(header.model.num_layers), known)
    if evaluate is not None:
        _check_turns(header, evaluate.turns, forward_names(header.model.num_layers), known)
        called = {call.section for turn in evaluate.turns for call in turn.calls}
        lasting = sorted(name for name in called if known[name].forms_gradients)
        require(not lasting, f"the program that evaluates calls {', '.join(lasting)}, which forms gradients")


def _check_turns(header: Header, turns: Sequence[Turn], expected: Sequence[str], known: Mapping[str, _Facts]) -> None:
    found = [turn.name for turn in turns]
    if found != expected:
        place = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
        place = min(len(found), len(expected)) if place is None else place
        one, other = (names[place] if place < len(names) else "nothing" for names in (found, expected))
        require(False, f"turn {place} of the program is {one}, where {other} is due")
    for turn in turns:
        for call in turn.calls:
            require(call.section in known, f"{turn.name} calls {call.section}, which is no section")
            _check_call(header, turn, call, known[call.section])
        own = [call for call in turn.calls if call.owner == "plan"]
        _check_emitted(turn, [known[call.section] for call in own])
        _check_gathered(turn, [(call, kind) for call in own for kind in known[call.section].gathers])


def turn_names(num_layers: int) -> list[str]:
    """The turns of a micro-step in the order in which autograd asks for them, and `end`."""
    return [
        *forward_names(num_layers),
        turn_name("head", "backward", None),
        *(turn_name("layer", "backward", layer) for layer in reversed(range(num_layers))),
        turn_name("embed", "backward", None),
        "end",
    ]


def forward_names(num_layers: int) -> list[str]:
    """The turns of a forward, which are all of a program that evaluates."""
    return [
        turn_name("embed", "forward", None),
        *(turn_name("layer", "forward", layer) for layer in range(num_layers)),
        turn_name("head", "forward", None),
    ]


class _Facts:
    """What is asked of a section by every call of it, found once."""

    def __init__(self, section: Section) -> None:
        kinds = [section.kinds[number] for number in np.unique(section.columns.kind[section.rows])]
        self.bounds: Sequence[ArgBounds] = arg_bounds(section)
        self.params = section.params
        self.needs_layer = any(OP_KINDS[kind.name].needs_layer for kind in kinds)
        self.is_external = any(kind.external for kind in kinds)
        names = np.array([kind.name == "emitGrads" for kind in section.kinds], bool)
        self.forms_gradients = any(
            view.startswith("wgrad")
            for kind in kinds
            for group in OP_KINDS[kind.name].groups
            if group != "many"
            for view in group
        )
        self.num_emitted = int(names[section.columns.kind[section.rows]].sum())
        self.gathers = tuple(kind.name for kind in kinds if kind.name in ("gather", "release"))
        self.plan_runs = all(not kind.external or kind.name in RUN_BY_PLAN for kind in kinds)


def _check_call(header: Header, turn: Turn, call: Call, facts: _Facts) -> None:
    where = f"{turn.name}: the call of {call.section}"
    count = len(call.args)
    require(count == len(facts.params), f"{where} has {count} arguments, the section {len(facts.params)} parameters")
    for name, value, bounds in zip(facts.params, call.args, facts.bounds, strict=True):
        fits = bounds.low <= value < bounds.high
        require(fits, f"{where} binds {name} to {value}, it may be {bounds.low} to {bounds.high - 1}")
    streams = len(header.streams)
    require(len(call.waits) == streams, f"{where} has {len(call.waits)} entry masks for {streams} streams")
    require(all(mask < 1 << streams for mask in call.waits), f"{where} waits for a stream that is not there")
    layer = call.layer
    require(layer is None or layer < header.model.num_layers, f"{where} is for layer {layer}")
    if call.owner == "plan":
        require(layer is not None or not facts.needs_layer, f"{where} names no layer, its ops use one's weights")
        require(facts.plan_runs, f"{where} is the plan's to run, but its work is ZeRO's")


def _check_emitted(turn: Turn, calls: Sequence[_Facts]) -> None:
    emitted = sum(facts.num_emitted for facts in calls)
    wanted = 1 if turn.direction == "backward" and turn.module != "end" else 0
    require(emitted == wanted, f"{turn.name} hands over gradients {emitted} times, not {wanted}")


def _check_gathered(turn: Turn, calls: Sequence[tuple[Call, str]]) -> None:
    """What the plan gathers beside the turn's own layer it releases in the same turn."""
    held: set[int | None] = set()
    for call, kind in calls:
        is_known = (call.layer in held) == (kind == "release")
        require(
            is_known,
            f"{turn.name} {kind}s layer {call.layer}, which it has{'' if kind == 'gather' else ' not'} gathered",
        )
        held ^= {call.layer}
    require(not held, f"{turn.name} gathers layer {min(map(str, held), default='')}, which it never releases")
