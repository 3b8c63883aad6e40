"""The CPU device: every order it runs is legal, and a missing wait shows in one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fpdt.devices import CopyMode, create_runtime, plan_runtime
from fpdt.errors import ArenaError, FpdtError
from fpdt.plan import Plan, Pool
from fpdt.run.context import OpContext
from fpdt.run.executor import Executor
from tests.plan_builder import STREAMS, PlanBuilder, View
from tests.test_executor import add_one, copy_views, executor_for, nothing, run

MODES: tuple[CopyMode, ...] = ("eager", "lazy", "random")
KIND_OF = {"c": "zero", "h": "copy", "d": "copy", "x": "toHeads"}
PROGRAM = ["h", "h", "c 0", "x 2", "c", "d 2", "c 3 1", "x", "d 6", "c 8"]
POOLS = [Pool(name="hbm", kind="device", bytes=512), Pool(name="host", kind="pinned", bytes=512)]
Masks = Mapping[str, Sequence[str]]


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


def order_of(plan: Plan, mode: CopyMode, seed: int = 0) -> list[tuple[str, int]]:
    """(section, op) as they ran."""
    order: list[tuple[str, int]] = []

    def note(ctx: OpContext, *views: Any) -> None:
        order.append((ctx.op.section.name, ctx.op.id))

    executor, _, _ = executor_for(plan, dict.fromkeys(("zero", "copy", "toHeads"), note), mode, seed)
    run(executor, plan)
    return order


def check_legal(plan: Plan, order: list[tuple[str, int]]) -> None:
    """Waits, each stream's own order, and entry masks."""
    place = {item: position for position, item in enumerate(order)}
    calls = [call for turn in plan.turns for call in turn.calls if call.section != "emit"]
    before: list[tuple[str, int, str]] = []
    for call in calls:
        section = plan.sections[call.section]
        assert len(section.ops) > 0
        for op in section.ops:
            mask = call.waits[STREAMS.index(op.stream)]
            earlier = [(name, number) for name, number, stream in before if stream == op.stream]
            earlier += [(name, number) for name, number, stream in before if mask >> STREAMS.index(stream) & 1]
            own = [(section.name, wait) for wait in op.waits]
            own += [(section.name, other.id) for other in section.ops[: op.id] if other.stream == op.stream]
            assert all(place[other] < place[section.name, op.id] for other in (*earlier, *own)), (op.id, order)
        before += [(section.name, op.id, op.stream) for op in section.ops]
    assert len(order) == len(before)


def test_eager_runs_in_plan_order() -> None:
    assert order_of(program_plan(), "eager") == [("section0", op) for op in range(len(PROGRAM))]


def test_lazy_runs_copies_when_a_wait_asks_for_them() -> None:
    order = [op for _, op in order_of(program_plan(), "lazy")]
    assert order == [0, 2, 4, 3, 1, 6, 5, 8, 9, 7]


def test_random_orders_are_legal_many_and_repeatable() -> None:
    plan = program_plan()
    orders = [order_of(plan, "random", seed) for seed in range(80)]
    for order in orders:
        check_legal(plan, order)
    assert len({tuple(order) for order in orders}) > 20
    assert order_of(plan, "random", 7) == orders[7]


MASKED: list[tuple[Sequence[str], Masks]] = [
    (["h", "c", "d 1", "h", "d"], {}),
    (["h", "c 0", "d 1"], {"h2d": ["d2h"], "compute": ["h2d"]}),
    (["d", "c", "h"], {"h2d": ["d2h", "compute"]}),
    (["c", "h"], {"compute": ["h2d", "d2h", "comm"], "h2d": ["compute"]}),
]


@pytest.mark.parametrize("mode", MODES)
def test_entry_masks_hold_in_every_order(mode: CopyMode) -> None:
    plan = program_plan(MASKED)
    for seed in range(60):
        check_legal(plan, order_of(plan, mode, seed))


@pytest.mark.parametrize("mode", ["lazy", "random"])
def test_side_streams_go_on_after_their_turn(mode: CopyMode) -> None:
    """Without masks, copies of the first turn run after compute of the second; exchanges never do."""
    plan = program_plan([(["h", "x", "d"], {}), (["c", "h"], {})])
    orders = [order_of(plan, mode, seed) for seed in range(40)]
    late = [order.index(("section0", 2)) > order.index(("section1", 0)) for order in orders]
    assert any(late) and all(order.index(("section0", 1)) < order.index(("section1", 0)) for order in orders)


@pytest.mark.parametrize("mode", ["lazy", "random"])
def test_a_mask_holds_back_what_a_missing_one_lets_go(mode: CopyMode) -> None:
    masked = program_plan([(["h", "d"], {}), (["c", "h"], {"compute": ["d2h"]})])
    orders = [order_of(masked, mode, seed) for seed in range(40)]
    assert all(order.index(("section0", 1)) < order.index(("section1", 0)) for order in orders)


def test_missing_wait_changes_the_result_in_some_order() -> None:
    """A copy into a slot that compute still reads: right when run eagerly, caught by the other orders."""

    def result(mode: CopyMode, seed: int, waits: tuple[int, ...]) -> float:
        builder = PlanBuilder().buffer("a", 1, pool="host", instances=2, scope="step").buffer("slot", 1, scope="step")
        builder.buffer("total", 1, scope="step").section("one")
        builder.op("copy", [View("a", 0, 1)], [View("slot", 0, 1)])
        builder.op("cast", [View("slot", 0, 1)], [View("total", 0, 1)], waits=waits)
        builder.op("copy", [View("a", 0, 1, index=1)], [View("slot", 0, 1)], waits=[1])
        plan = builder.call("embed forward").build()

        def cast(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
            writes[0].copy_(reads[0])

        executor, _, _ = executor_for(plan, {"copy": copy_views, "cast": cast}, mode, seed)
        executor.buffer("slot").zero_()
        executor.buffer("a", 0).fill_(3)
        executor.buffer("a", 1).fill_(5)
        run(executor, plan)
        return float(executor.buffer("total"))

    orders: list[tuple[CopyMode, int]] = [("eager", 0), ("lazy", 0), *(("random", seed) for seed in range(8))]
    assert {result(mode, seed, (0,)) for mode, seed in orders} == {3.0}
    assert result("eager", 0, ()) == 3.0
    assert result("lazy", 0, ()) == 0.0
    assert {result("random", seed, ()) for seed in range(8)} == {0.0, 3.0}


def test_clock_goes_forward() -> None:
    runtime = create_runtime("cpu", POOLS)
    first = runtime.now()
    assert 0 <= first <= runtime.now()


def test_unknown_device_is_refused() -> None:
    with pytest.raises(FpdtError, match="for device 'tpu'") as caught:
        create_runtime("tpu", POOLS)
    assert "cpu or cuda" in caught.value.hint


def test_alone_an_exchange_is_a_copy() -> None:
    runtime, out = create_runtime("cpu", POOLS), torch.zeros(4)
    runtime.all_to_all(out, torch.arange(4.0))
    assert out.tolist() == [0, 1, 2, 3]


# --- files -------------------------------------------------------------------------------------------------------


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


def run_disk_plan(
    plan: Plan, folder: Path, mode: CopyMode = "eager", seed: int = 0
) -> tuple[list[float], dict[str, int]]:
    """The last row of every chunk of y, and the bytes copied."""
    runtime = plan_runtime(plan, copy_mode=mode, seed=seed, disk_folder=folder)
    recorder = runtime.make_recorder(plan.kind_names, 0)
    executor = Executor(plan, runtime, {"copy": copy_views, "cast": add_one, "emitGrads": nothing}, recorder)
    try:
        for chunk in range(4):
            executor.buffer("x", chunk).fill_(10 * chunk)
        run(executor, plan)
        return [float(executor.buffer("y", i)[699]) for i in range(8)], runtime.take_copied_bytes()
    finally:
        runtime.close()


@pytest.mark.parametrize("mode", MODES)
def test_what_goes_to_a_file_comes_back(mode: CopyMode, tmp_path: Path) -> None:
    for seed in range(4):
        found, copied = run_disk_plan(disk_plan(), tmp_path, mode, seed)
        assert found == [1, 11, 21, 31, 2, 12, 22, 32]
        assert copied == dict.fromkeys(("h2d", "d2h", "read", "write"), 8 * 2800)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_wait_for_a_file_shows_in_some_order(tmp_path: Path) -> None:
    results = {tuple(run_disk_plan(disk_plan(late_wait=True), tmp_path, "random", seed)[0]) for seed in range(12)}
    assert len(results) > 1


def test_a_file_pool_needs_a_folder() -> None:
    with pytest.raises(ArenaError, match="in the pool disk, a file, and no folder was given") as caught:
        executor_for(disk_plan(), {"copy": copy_views, "cast": copy_views})
    assert "--disk-folder" in caught.value.hint


@pytest.mark.parametrize("mode", MODES)
def test_a_failed_transfer_raises_and_frees_everyone(
    mode: CopyMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwritev", broken)
    with pytest.raises(FpdtError, match="Input/output error"):
        run_disk_plan(disk_plan(), tmp_path, mode)


# --- two ranks ---------------------------------------------------------------------------------------------------

EXCHANGE = """
import sys
import torch
import torch.distributed as dist
from fpdt.devices import plan_runtime
from fpdt.run.executor import Executor
from tests.test_devices import program_plan
from tests.test_executor import nothing, run

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
program = ["x", "h", "x", "c 1", "h", "x", "d 3", "x 6"]
plan = program_plan([(program, {}), (program, {"compute": ["h2d"]})])
for dtype in (torch.float32, torch.bfloat16, torch.int64):
    # Ranks run local copies in different orders; exchanges keep theirs, so that nothing waits for ever.
    runtime = plan_runtime(plan, dist.group.WORLD, copy_mode="random", seed=rank)
    outs = [torch.zeros(2, 3, dtype=dtype) for _ in range(8)]
    numbers = iter(range(8))

    def exchange(ctx, reads, writes):
        n = next(numbers)
        sent = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=dtype) + 10 * n + 100 * rank
        runtime.all_to_all(outs[n], sent)

    handlers = {"toHeads": exchange, "copy": nothing, "zero": nothing, "emitGrads": nothing}
    executor = Executor(plan, runtime, handlers, runtime.make_recorder(plan.kind_names, 0))
    run(executor, plan)
    for n, out in enumerate(outs):
        own = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=dtype)[rank]
        assert torch.equal(out, torch.stack([own + 10 * n, own + 10 * n + 100])), (n, out)
dist.barrier()
import os
os._exit(0)
"""


def test_two_ranks_exchange_bytes_of_any_dtype(tmp_path: Path) -> None:
    package_root = Path(__file__).parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(package_root)}
    commands = ([sys.executable, "-c", EXCHANGE, str(rank), str(tmp_path / "store")] for rank in range(2))
    ranks = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for command in commands]
    try:
        errors = [rank.communicate(timeout=90)[1].decode() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(errors)


def test_cuda_runtime_can_be_imported_without_cuda() -> None:
    from fpdt.devices.cuda import CudaRuntime

    assert not getattr(CudaRuntime, "__abstractmethods__", None)
