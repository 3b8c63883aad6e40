"""How many calls of CUDA a step of a plan needs: a runtime that makes more orders what the plan does not."""

from __future__ import annotations

from collections import Counter

import numpy as np

from fpdt.devices.launch_order import launch_order
from fpdt.plan import Call, Plan, Section
from fpdt.run.runtime import COMPUTE
from fpdt.testing.fake_cuda.oracle import OrderError

JOINS = 2
"""Of a step: at its beginning and at its end, of the streams beside its own; a file's has nothing to wait for."""
SPARE_EVENTS = 14
"""Made in a step whose ops are timed, where marks of the step before have not been reached when others are needed."""


def check_costs(plan: Plan, found: Counter[str], times_ops: bool) -> None:
    """`found` are the calls of a step by name. Raises OrderError where there are more than the plan needs."""
    allowed = step_costs(plan, times_ops)
    for name, most in allowed.items():
        if found[name] > most:
            raise OrderError(f"a step calls {name} {found[name]} times, the plan needs {most}")


def step_costs(plan: Plan, times_ops: bool) -> dict[str, int]:
    """The most calls of a step after the first: of waits, records, set_stream, and events made."""
    marks = 2 if times_ops else 0
    calls = [call for turn in plan.turns for call in turn.calls if call.owner == "plan"]
    joined = JOINS * sum(
        place != COMPUTE and name not in _file_streams(plan) for place, name in enumerate(plan.streams)
    )
    total: Counter[str] = Counter(
        wait=joined, record=joined + 2 + len(plan.turns), create=joined + 2 + SPARE_EVENTS * times_ops, set_stream=0
    )
    by_section = {name: _section_costs(plan, section, marks) for name, section in plan.sections.items()}
    for call in calls:
        total += by_section[call.section] + _entry_costs(plan, call)
    return dict(total)


def _section_costs(plan: Plan, section: Section, marks: int) -> Counter[str]:
    """`marks`: of time, an op."""
    kinds = [section.kinds[number] for number in section.columns.kind[section.rows].tolist()]
    if kinds and kinds[0].external:
        return Counter(record=marks * len(kinds), create=marks * len(kinds))
    streams = section.columns.stream[section.rows].tolist()
    is_file = [plan.streams[place] in _file_streams(plan) for place in streams]
    awaited, costs, current = set[int](), Counter[str](set_stream=1), 0
    all_waits = [section.waits(op) for op in range(section.num_ops)]
    for op in range(section.num_ops) if any(is_file) else launch_order(streams, all_waits):
        waits = [wait for wait in all_waits[op] if not is_file[wait] and streams[wait] != streams[op]]
        if is_file[op]:
            # An event a ticket.
            num_streams = len({streams[wait] for wait in waits})
            costs += Counter(record=num_streams, create=num_streams)
            continue
        awaited.update(waits)
        costs += Counter(wait=len(waits), record=marks, set_stream=int(streams[op] != current))
        current = streams[op]
    return costs + Counter(record=len(awaited))


def _entry_costs(plan: Plan, call: Call) -> Counter[str]:
    """Of its mask, between streams of the device; a transfer waits by events of its own."""
    places = range(len(plan.streams))
    is_file = [name in _file_streams(plan) for name in plan.streams]
    pairs = [(s, t) for s in places for t in places if call.waits[s] >> t & 1 and not is_file[t]]
    section = plan.sections[call.section]
    mine = set(np.unique(section.columns.stream[section.rows]).tolist())
    tickets = sum(1 for s, _ in pairs if is_file[s] and s in mine)
    waits = sum(1 for s, t in pairs if not is_file[s] and s != t)
    return Counter(wait=waits, record=len({t for _, t in pairs}) + tickets, create=tickets)


def _file_streams(plan: Plan) -> set[str]:
    kinds = plan.pool_kinds
    return {link.stream for link in plan.header.links if "file" in (kinds[link.from_], kinds[link.to])}
