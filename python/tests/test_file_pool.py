"""Pools in files: round trips and order."""

from __future__ import annotations

import gc
import os
import random
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fpdt.devices.file_pool import FilePool, Ticket
from tests.file_pools import BLOCK, Gate, aligned, filled, settle, wait_until


@pytest.fixture(params=[True, False], ids=["direct", "buffered"])
def make_pool(request: pytest.FixtureRequest, direct_folder: Path) -> Iterator[Callable[[int], FilePool]]:
    pools: list[FilePool] = []

    def make(num_bytes: int) -> FilePool:
        pool = FilePool(direct_folder, num_bytes, "disk", direct=request.param)
        assert pool.direct is request.param
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.close()


def test_random_places_keep_what_was_written(make_pool: Callable[[int], FilePool]) -> None:
    """Writes and reads in random order over each other, against a plain tensor; each waits for what it depends on."""
    num_blocks, generator = 64, random.Random(3)
    pool, mirror = make_pool(num_blocks * BLOCK), torch.zeros(num_blocks * BLOCK, dtype=torch.uint8)
    settle(pool.write(0, aligned(num_blocks * BLOCK)))
    last: list[Ticket] = []
    checks: list[tuple[Ticket, Tensor, Tensor]] = []
    num_written = num_blocks * BLOCK
    for step in range(200):
        start = generator.randrange(num_blocks)
        num_bytes = BLOCK * generator.randint(1, num_blocks - start)
        rows = slice(start * BLOCK, start * BLOCK + num_bytes)
        if generator.random() < 0.5:
            mirror[rows] = filled(num_bytes, step)
            last = [pool.write(rows.start, filled(num_bytes, step), last)]
            num_written += num_bytes
        else:
            target = aligned(num_bytes)
            last = [pool.read(rows.start, target, last)]
            checks.append((last[0], target, mirror[rows].clone()))
    for ticket, target, expected in checks:
        settle(ticket)
        assert ticket.done()
        assert torch.equal(target, expected)
    settle(last[0])
    assert (pool.read_bytes, pool.written_bytes) == (sum(x.numel() for _, x, _ in checks), num_written)


def test_transfers_longer_than_a_call_and_calls_that_do_less(
    make_pool: Callable[[int], FilePool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call is asked for more than the limit, and what a call leaves over is done by the next."""
    pool, data, back = make_pool(33 * BLOCK), filled(31 * BLOCK, 1), aligned(31 * BLOCK)
    monkeypatch.setattr("fpdt.devices.file_pool.MAX_CALL_BYTES", 4 * BLOCK)
    asked: list[int] = []
    for name in ("preadv", "pwritev"):
        monkeypatch.setattr(os, name, halving(getattr(os, name), asked))
    settle(pool.write(2 * BLOCK, data))
    settle(pool.read(2 * BLOCK, back))
    assert torch.equal(data, back)
    assert max(asked) == 4 * BLOCK and len(asked) > 2 * 31 / 4
    assert (pool.read_bytes, pool.written_bytes) == (31 * BLOCK, 31 * BLOCK)


def halving(call: Callable[..., int], asked: list[int]) -> Callable[..., int]:
    def partial(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        (view,) = buffers
        asked.append(len(view))
        return call(descriptor, [view[: max(1, len(view) // BLOCK // 2) * BLOCK]], offset)

    return partial


def test_a_buffered_pool_takes_any_size_and_place(tmp_path: Path) -> None:
    pool = FilePool(tmp_path, 1000, "disk", direct=False)
    data, back = torch.arange(100, dtype=torch.uint8), torch.zeros(102, dtype=torch.uint8)
    written = pool.write(7, data[1:])
    settle(pool.read(6, back[1:], after=[written]))
    assert back.tolist() == [0, 0, *range(1, 100), 0]
    pool.close()


def test_each_queue_is_first_in_first_out_and_does_not_wait_for_the_other(
    direct_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = FilePool(direct_folder, 64 * BLOCK, "disk")
    writes = Gate(monkeypatch, "pwritev")
    order = random.Random(1).sample(range(64), 64)
    tickets = [pool.write(block * BLOCK, aligned(BLOCK)) for block in order]
    settle(pool.read(0, aligned(BLOCK)))
    assert not any(ticket.done() for ticket in tickets), "the read went past them"
    writes.open()
    for ticket in reversed(tickets):
        settle(ticket)
        assert all(ticket.done() for ticket in tickets), "the last is done last"
    assert writes.started == [block * BLOCK for block in order]
    pool.close()


def test_a_transfer_starts_after_the_tickets_it_names(direct_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `after` the read would find zeros; its queue waits with it, as a stream does."""
    pool = FilePool(direct_folder, 2 * BLOCK, "disk")
    writes, reads = Gate(monkeypatch, "pwritev"), Gate(monkeypatch, "preadv")
    reads.open()
    data, back = filled(BLOCK, 5), aligned(BLOCK)
    written = pool.write(0, data)
    first, second = pool.read(0, back, after=[written]), pool.read(BLOCK, aligned(BLOCK))
    wait_until(lambda: bool(writes.started))
    time.sleep(0.3)  # longer than the reader's own look-up
    assert not first.done() and not second.done() and not reads.started
    writes.open()
    settle(second)
    assert first.done() and torch.equal(back, data) and reads.started == [0, BLOCK]
    pool.close()


def test_an_idle_pool_keeps_no_tensor_alive(direct_folder: Path) -> None:
    pool = FilePool(direct_folder, BLOCK, "disk")
    tensor = aligned(BLOCK)
    kept = weakref.ref(tensor)
    ticket = pool.write(0, tensor)
    del tensor
    settle(ticket)

    def is_gone() -> bool:
        gc.collect()
        return kept() is None

    wait_until(is_gone)
    pool.close()
