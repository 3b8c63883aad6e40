"""Plans for tests of devices: ops written as stream letters and waits, and a plan that saves to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fpdt.devices import CopyMode
from fpdt.plan import Plan
from tests.plan_builder import PlanBuilder, View

MODES: tuple[CopyMode, ...] = ("eager", "lazy", "random")
KIND_OF = {"c": "zero", "h": "copy", "d": "copy", "x": "toHeads"}
PROGRAM = ["h", "h", "c 0", "x 2", "c", "d 2", "c 3 1", "x", "d 6", "c 8"]
Masks = Mapping[str, Sequence[str]]
MASKED: list[tuple[Sequence[str], Masks]] = [
    (["h", "c", "d 1", "h", "d"], {}),
    (["h", "c 0", "d 1"], {"h2d": ["d2h"], "compute": ["h2d"]}),
    (["d", "c", "h"], {"h2d": ["d2h", "compute"]}),
    (["c", "h"], {"compute": ["h2d", "d2h", "comm"], "h2d": ["compute"]}),
]


def add_section(builder: PlanBuilder, name: str, program: Sequence[str]) -> None:
    """Ops from a stream letter and the ids each waits for."""
    builder.section(name)
    for text in program:
        letter, *waits = text.split()
        host, hbm = [View("host", 0, 1)], [View("hbm", 0, 1)]
        reads, writes = {"h": (host, hbm), "d": (hbm, host)}.get(letter, ([], []))
        builder.op(KIND_OF[letter], reads, writes, waits=map(int, waits))


def program_plan(calls: Sequence[tuple[Sequence[str], Masks]] = ((PROGRAM, {}),)) -> Plan:
    """Each program is called in a turn of its own: embed forward, layer 0 forward, and so on."""
    builder = PlanBuilder(num_layers=max(1, len(calls) - 1))
    builder.buffer("host", 1, pool="host").buffer("hbm", 1)
    for number, (program, masks) in enumerate(calls):
        turn = "embed forward" if number == 0 else f"layer {number - 1} forward"
        add_section(builder, f"section{number}", program)
        builder.call(turn, waits=masks)
    return builder.build()


def disk_plan(num_chunks: int = 4, *, late_wait: bool = False) -> Plan:
    """Forward writes chunks of x to a file, layer by layer; backward reads them and copies them to y."""
    builder = PlanBuilder(num_layers=2)
    builder.buffer("x", 700, instances=num_chunks, scope="step", alignment=4096)
    builder.buffer("y", 700, instances=2 * num_chunks, scope="step")
    builder.buffer("out", 700, instances=2, pool="host", alignment=4096, scope="step")
    builder.buffer("in", 700, instances=2, pool="host", alignment=4096, scope="step")
    builder.buffer("saved", 700, instances=2 * num_chunks, pool="disk", scope="step")
    builder.section("save", "saved")
    for chunk in range(num_chunks):
        staged = View("out", 0, 700, index=chunk % 2)
        builder.op("cast", [View("x", 0, 700, index=chunk)], [View("x", 0, 700, index=chunk)])
        reuse = [3 * (chunk - 2) + 2] if chunk > 1 else []
        builder.op("copy", [View("x", 0, 700, index=chunk)], [staged], waits=[3 * chunk, *reuse])
        builder.op("copy", [staged], [View("saved", 0, 700, "saved", chunk)], waits=[3 * chunk + 1])
    builder.section("load", "saved")
    for chunk in range(num_chunks):
        staged, y = View("in", 0, 700, index=chunk % 2), View("y", 0, 700, "saved", chunk)
        reuse = [2 * (chunk - 2) + 1] if chunk > 1 else []
        builder.op("copy", [View("saved", 0, 700, "saved", chunk)], [staged], waits=reuse)
        builder.op("copy", [staged], [y], waits=[] if late_wait else [2 * chunk])
    for layer in range(2):
        masks = {"d2h": ["compute", "write"], "compute": ["d2h"]}
        builder.call(f"layer {layer} forward", "save", [layer * num_chunks], waits=masks)
        masks = {"read": ["write", "h2d"], "h2d": ["read", "compute"]}
        builder.call(f"layer {layer} backward", "load", [layer * num_chunks], waits=masks)
    return builder.build()
