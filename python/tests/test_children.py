"""What becomes of forked processes: an answer, a failure, a death or a hang; a slow one is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from fpdt.testing import progress
from fpdt.testing.children import JobError, Result, note_progress, place_of, run_children
from fpdt.testing.progress import IdleWatch
from fpdt.wire.procfs import read_stat, thread_states

NEVER = 600.0


def answer(value: int) -> Result:
    return {"value": value}


def wait_for_ever() -> Result:
    threading.Event().wait()
    return {}


def work(cpu_seconds: float) -> Result:
    started = time.process_time()
    while time.process_time() - started < cpu_seconds:
        sum(range(1000))
    return {"value": 1}


def test_answers_come_in_order() -> None:
    assert run_children([partial(answer, value) for value in range(8)], NEVER) == [{"value": v} for v in range(8)]


def test_a_failure_ends_the_others() -> None:
    def fail() -> Result:
        raise ValueError("no such token")

    started = time.monotonic()
    with pytest.raises(JobError, match="ValueError: no such token") as caught:
        run_children([wait_for_ever, fail], NEVER)
    assert "in fail" in caught.value.trace
    assert time.monotonic() - started < NEVER


def test_a_death_names_the_rank_and_its_status() -> None:
    def die() -> Result:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    with pytest.raises(JobError, match="rank 1 died without an answer, status -9"):
        run_children([wait_for_ever, die], NEVER)


def test_what_works_or_notes_progress_for_longer_than_it_may_idle_does_not_hang() -> None:
    def step_by_step() -> Result:
        for _ in range(8):
            time.sleep(0.5)
            note_progress()
        return {"value": 2}

    assert run_children([partial(work, 3.0), wait_a_little], 1.5) == [{"value": 1}, {"value": 0}]
    assert run_children([step_by_step], 1.5) == [{"value": 2}]


def wait_a_little() -> Result:
    time.sleep(0.1)
    return {"value": 0}


def join(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=2)


def hang_in_a_collective(folder: str, rank: int) -> Result:
    join(rank, folder)
    if rank == 1:
        return wait_for_ever()
    dist.all_reduce(torch.ones(1))
    return {}


def test_a_hang_in_a_collective_says_where_every_rank_is(tmp_path: Path) -> None:
    works = [partial(hang_in_a_collective, str(tmp_path), rank) for rank in range(2)]
    with pytest.raises(JobError, match=r"no rank has moved for 3 s; rank 0 in .*; rank 1 in ") as caught:
        run_children(works, 3.0)
    assert "in all_reduce" in caught.value.trace
    assert "in wait_for_ever" in caught.value.trace


def test_stopped_processes_hang_and_cannot_say_where() -> None:
    def stop() -> Result:
        os.kill(os.getpid(), signal.SIGSTOP)
        return {}

    with pytest.raises(JobError, match="rank 0 in an unknown place"):
        run_children([stop], 1.0)


def test_the_place_of_an_op_is_its_handler_and_where_that_waits() -> None:
    stacks = """Thread 0x01 (most recent call first):
  File "/x/python/fpdt/wire/sockets.py", line 9 in run

Current thread 0x02 (most recent call first):
  File "/x/torch/distributed/distributed_c10d.py", line 4 in all_to_all_single
  File "/x/python/fpdt/run/runtime.py", line 180 in all_to_all
  File "/x/python/fpdt/ops/exchange.py", line 44 in to_heads
  File "/x/python/fpdt/devices/cpu.py", line 7 in _run_now
"""
    assert place_of(stacks) == "to_heads (ops/exchange.py:44) at all_to_all (run/runtime.py:180)"
    assert place_of(stacks.partition("\n\n")[0]) == "run (wire/sockets.py:9)"
    assert place_of("") == "an unknown place: it does not answer"


def test_only_ticks_of_the_watcher_count(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import time; print(flush=True); time.sleep(600)"
    sleeper = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        while thread_states(sleeper.pid) != "S":
            time.sleep(0.1)
        watch = IdleWatch([sleeper.pid], 4 * progress.TICK_SECONDS)
        watch.tick()
        for clock in ("monotonic", "time", "perf_counter"):
            monkeypatch.setattr(time, clock, lambda: 1e9)
        for _ in range(3):
            watch.tick()
        assert not watch.is_idle
        watch.tick()
        assert watch.is_idle
        watch.reset()
        assert not watch.is_idle
    finally:
        sleeper.kill()
        sleeper.communicate()


Look = tuple[int, bool]


@pytest.mark.parametrize(
    ("looks", "is_idle"),
    [
        ([(50, False)] * 11, True),
        ([(50 + i // 4, False) for i in range(11)], True),
        ([(50 + 2 * i, False) for i in range(11)], False),
        ([(50, i == 5) for i in range(11)], True),
        ([(50, i % 2 == 0) for i in range(11)], False),
    ],
    ids=["nothing", "background threads", "slow work", "seen ready once", "ready without getting a processor"],
)
def test_what_counts_as_moving(looks: list[Look], is_idle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    coming = iter(looks)
    monkeypatch.setattr(progress, "_look_at", lambda pid: progress._Look(*next(coming)))
    watch = IdleWatch([1], 10 * progress.TICK_SECONDS)
    for _ in looks:
        watch.tick()
    assert watch.is_idle == is_idle


def test_children_end_with_their_parent(tmp_path: Path) -> None:
    """Killed while it waits for them."""
    pids = tmp_path / "pids"

    def child() -> Result:
        with pids.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return wait_for_ever()

    def parent() -> Result:
        run_children([child, child], NEVER)
        return {}

    def kill_parent(found: list[int]) -> Result:
        while not pids.exists() or len(pids.read_text().splitlines()) < 2:
            time.sleep(0.05)
        found.extend(int(line) for line in pids.read_text().splitlines())
        os.kill(read_parent(found[0]), signal.SIGKILL)
        return {"pids": found}

    with pytest.raises(JobError, match="rank 0 died"):
        run_children([parent, partial(kill_parent, [])], NEVER)
    for pid in map(int, pids.read_text().splitlines()):
        while (stat := read_stat(pid)) is not None and not stat.has_ended:
            time.sleep(0.05)


def read_parent(pid: int) -> int:
    status: dict[str, Any] = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return int(status["PPid"])
