"""The CPU device: every order it runs is legal, and a missing wait shows in one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fpdt.devices import CopyMode, CpuRuntime, create_runtime
from fpdt.errors import FpdtError, ScheduleError
from fpdt.plan import Op, Range

MODES: tuple[CopyMode, ...] = ("eager", "lazy", "random")
STREAM_OF = {"c": "compute", "h": "h2d", "d": "d2h", "x": "comm"}
PROGRAM = ["h", "h", "c 0", "x 2", "c", "d 2", "c 3 1", "x", "d 6", "c 8"]


def make_op(op_id: int, text: str) -> Op:
    """From a stream letter and the ids it waits for."""
    letter, *waits = text.split()
    numbers = tuple(map(int, waits))
    return Op(op_id, "zero", STREAM_OF[letter], 0, Range(0, 1), None, (), (), (), numbers, 0)


def order_of(program: Sequence[str], mode: CopyMode, seed: int = 0) -> list[int]:
    runtime = CpuRuntime({"hbm": 0, "host": 0}, copy_mode=mode, seed=seed)
    order: list[int] = []
    run_program(runtime, program, order)
    return order


def run_program(runtime: CpuRuntime, program: Sequence[str], order: list[int]) -> None:
    ops = [make_op(op_id, text) for op_id, text in enumerate(program)]
    runtime.begin_part(ops)
    for op in ops:
        runtime.launch(op, lambda op=op: order.append(op.id))  # type: ignore[misc]
    runtime.finish_part()


def check_legal(program: Sequence[str], order: list[int]) -> None:
    ops = [make_op(op_id, text) for op_id, text in enumerate(program)]
    place = {op_id: position for position, op_id in enumerate(order)}
    assert sorted(order) == list(range(len(program)))
    for op in ops:
        before = [*op.waits, *(other.id for other in ops[: op.id] if other.stream == op.stream)]
        assert all(place[other] < place[op.id] for other in before), (op, order)


def test_eager_runs_in_plan_order() -> None:
    assert order_of(PROGRAM, "eager") == list(range(len(PROGRAM)))


def test_lazy_runs_copies_when_a_wait_asks_for_them() -> None:
    assert order_of(PROGRAM, "lazy") == [0, 2, 4, 3, 1, 6, 5, 8, 9, 7]


def test_random_orders_are_legal_many_and_repeatable() -> None:
    orders = [order_of(PROGRAM, "random", seed) for seed in range(80)]
    for order in orders:
        check_legal(PROGRAM, order)
    assert len({tuple(order) for order in orders}) > 20
    assert order_of(PROGRAM, "random", 7) == orders[7]


def test_lazy_and_random_differ_between_parts_but_start_clean() -> None:
    runtime = CpuRuntime({"hbm": 0, "host": 0}, copy_mode="random", seed=3)
    orders: list[list[int]] = [[] for _ in range(5)]
    for order in orders:
        run_program(runtime, PROGRAM, order)
        check_legal(PROGRAM, order)
    assert len({tuple(order) for order in orders}) > 1


@pytest.mark.parametrize("mode", MODES)
def test_external_work_is_a_barrier(mode: CopyMode) -> None:
    runtime, order = CpuRuntime({"hbm": 0, "host": 0}, copy_mode=mode), list[int]()
    ops = [make_op(op_id, text) for op_id, text in enumerate(["h", "d", "x", "x", "c 2", "h"])]
    runtime.begin_part(ops)
    for op in ops:
        start = runtime.run_external if op.id == 3 else runtime.launch
        start(op, lambda op=op: order.append(op.id))  # type: ignore[misc]
    runtime.finish_part()
    assert sorted(order[:3]) == [0, 1, 2] and order[3] == 3 and sorted(order[4:]) == [4, 5]


@pytest.mark.parametrize("mode", MODES)
def test_a_wait_for_nothing_is_an_error(mode: CopyMode) -> None:
    with pytest.raises(ScheduleError, match="waits for"):
        order_of(["c", "h", "c 7"], mode)


def test_what_an_error_left_queued_never_runs() -> None:
    runtime, order = CpuRuntime({"hbm": 0, "host": 0}, copy_mode="lazy"), list[int]()
    runtime.begin_part([])
    runtime.launch(make_op(0, "h"), lambda: order.append(0))
    runtime.abandon_part()
    run_program(runtime, ["c", "h"], order)
    assert order == [0, 1]


def test_missing_wait_changes_the_result_in_some_order() -> None:
    """A copy into a slot that compute still reads: right when run eagerly, caught by the other orders."""

    def result(mode: CopyMode, seed: int, waits: str) -> float:
        runtime = CpuRuntime({"hbm": 0, "host": 0}, copy_mode=mode, seed=seed)
        slot, total = torch.zeros(1), torch.zeros(1)
        bodies = {0: lambda: slot.fill_(3), 1: lambda: total.add_(slot), 2: lambda: slot.fill_(5)}
        ops = [make_op(op_id, text) for op_id, text in enumerate(["h", f"c{waits}", "h 1"])]
        runtime.begin_part(ops)
        for op in ops:
            runtime.launch(op, lambda op=op: (bodies[op.id](), None)[1])  # type: ignore[misc]
        runtime.finish_part()
        return float(total)

    orders: list[tuple[CopyMode, int]] = [("eager", 0), ("lazy", 0), *(("random", seed) for seed in range(8))]
    assert {result(mode, seed, " 0") for mode, seed in orders} == {3.0}
    assert result("eager", 0, "") == 3.0
    assert result("lazy", 0, "") == 0.0
    assert {result("random", seed, "") for seed in range(8)} == {0.0, 3.0}


def test_copies_are_counted_by_direction() -> None:
    runtime = create_runtime("cpu", {"hbm": 512, "host": 512}, copy_mode="eager")
    out, source = torch.zeros(6), torch.ones(6)
    for op_id, letter in enumerate("hdc"):
        runtime.launch(make_op(op_id, letter), lambda: runtime.copy(out, source))
    runtime.launch(make_op(3, "h"), lambda: runtime.copy(out[:2], source[:2]))
    assert out.tolist() == [1] * 6
    assert runtime.take_copied_bytes() == {"h2d": 32, "d2h": 24}
    assert runtime.take_copied_bytes() == {"h2d": 0, "d2h": 0}


def test_stream_is_that_of_the_running_op() -> None:
    runtime, seen = create_runtime("cpu", {"hbm": 0, "host": 0}), list[str]()
    runtime.launch(make_op(0, "x"), lambda: seen.append(runtime.stream))
    assert (seen, runtime.stream) == (["comm"], "compute")


def test_clock_goes_forward() -> None:
    runtime = create_runtime("cpu", {"hbm": 0, "host": 0})
    first = runtime.now()
    assert 0 <= first <= runtime.now()


def test_unknown_device_is_refused() -> None:
    with pytest.raises(FpdtError, match="for device 'tpu'") as caught:
        create_runtime("tpu", {"hbm": 0, "host": 0})
    assert "cpu or cuda" in caught.value.hint


def test_alone_an_exchange_is_a_copy() -> None:
    runtime, out = create_runtime("cpu", {"hbm": 0, "host": 0}), torch.zeros(4)
    runtime.all_to_all(out, torch.arange(4.0))
    assert out.tolist() == [0, 1, 2, 3]


EXCHANGE = """
import sys
import torch
import torch.distributed as dist
from fpdt.devices import CpuRuntime
from tests.test_devices import make_op

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
for dtype in (torch.float32, torch.bfloat16, torch.int64):
    # Ranks run local copies in different orders; exchanges keep theirs, so that nothing waits for ever.
    runtime = CpuRuntime({"hbm": 0, "host": 0}, dist.group.WORLD, "random", seed=rank)
    outs = [torch.zeros(2, 3, dtype=dtype) for _ in range(4)]
    program = ["x", "h", "x", "c 1", "h", "x", "d 3", "x 6"]
    ops = [make_op(op_id, text) for op_id, text in enumerate(program)]
    exchanges = iter(range(4))
    runtime.begin_part(ops)
    for op in ops:
        if op.stream == "comm":
            n = next(exchanges)
            sent = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=dtype) + 10 * n + 100 * rank
            runtime.launch(op, lambda n=n, sent=sent: runtime.all_to_all(outs[n], sent))
        else:
            runtime.launch(op, lambda: None)
    runtime.finish_part()
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
