"""Pools in files: round trips, order, and errors that free every waiter."""

from __future__ import annotations

import errno
import gc
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fpdt.devices.file_pool import FilePool, FilePoolError, Ticket
from tests.file_pools import BLOCK, PATIENCE_SECONDS, aligned, fail, filled, num_pool_threads, settle, wait_until

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def direct_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose file system has direct transfers; there must be one."""
    candidates = [tmp_path_factory.mktemp("direct"), HERE, Path("/dev/shm")]
    for folder in candidates:
        if folder.is_dir():
            pool = FilePool(folder, BLOCK, "probe")
            pool.close()
            if pool.direct:
                return folder
    pytest.fail(
        f"direct transfers need a file system with O_DIRECT (ext4, xfs, btrfs, or tmpfs of Linux 6.6 or later) at one "
        f"of {', '.join(map(str, candidates))}; set TMPDIR to one"
    )


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


# --- transfers ---------------------------------------------------------------------------------------------------


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


class Gate:
    """Holds transfers of one direction until it is opened, and notes their offsets in the order they start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, fail_with: int | None = None) -> None:
        self.started: list[int] = []
        self._open = threading.Event()
        call = getattr(os, name)

        def held(descriptor: int, buffers: list[memoryview], offset: int) -> int:
            self.started.append(offset)
            assert self._open.wait(PATIENCE_SECONDS)
            if fail_with is not None:
                raise OSError(fail_with, os.strerror(fail_with))
            return int(call(descriptor, buffers, offset))

        monkeypatch.setattr(os, name, held)

    def open(self) -> None:
        self._open.set()


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


# --- what is refused ---------------------------------------------------------------------------------------------


def test_places_outside_the_file_and_other_tensors_are_refused(tmp_path: Path) -> None:
    pool = FilePool(tmp_path, 4 * BLOCK, "disk", direct=False)
    for offset, num_bytes in ((-1, 1), (4 * BLOCK, 1), (BLOCK, 3 * BLOCK + 1), (0, 0)):
        with pytest.raises(ValueError, match="are not inside the 16384 bytes of the file"):
            pool.read(offset, torch.empty(num_bytes, dtype=torch.uint8))
    for tensor in (torch.empty(8), torch.empty(8, 2, dtype=torch.uint8)[:, 0], torch.empty(8, device="meta").byte()):
        with pytest.raises(ValueError, match="expected a contiguous uint8 tensor on the cpu, got"):
            pool.write(0, tensor)
    with pytest.raises(ValueError, match="a file of 0 bytes"):
        FilePool(tmp_path, 0, "disk")
    pool.close()


def test_direct_transfers_must_be_aligned(direct_folder: Path) -> None:
    pool = FilePool(direct_folder, 8 * BLOCK, "disk", direct=True)
    memory = aligned(4 * BLOCK)
    wrong = {
        "offset 512": (512, memory[:BLOCK]),
        "length 4095": (0, memory[:4095]),
        "address": (0, memory[1 : BLOCK + 1]),
    }
    for name, (offset, tensor) in wrong.items():
        for submit in (pool.read, pool.write):
            with pytest.raises(ValueError, match=f"{name}.* must be a multiple of 4096 for direct transfers"):
                submit(offset, tensor)
    settle(pool.write(BLOCK, memory[2 * BLOCK :]))
    pool.close()


# --- errors of transfers, and the end ----------------------------------------------------------------------------


def test_the_first_error_ends_both_queues_at_once(direct_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a read is still under way: neither what is queued nor what comes later waits for it."""
    pool = FilePool(direct_folder, 16 * BLOCK, "disk")
    reads, writes = Gate(monkeypatch, "preadv"), Gate(monkeypatch, "pwritev", fail_with=errno.EIO)
    under_way = pool.read(0, aligned(BLOCK))
    failing = pool.write(3 * BLOCK, aligned(2 * BLOCK))
    queued = [pool.write(0, aligned(BLOCK)), pool.read(0, aligned(BLOCK)), pool.read(0, aligned(BLOCK), [failing])]
    wait_until(lambda: bool(reads.started and writes.started))
    writes.open()
    message = f"write of 8192 bytes at offset 12288 of {direct_folder / 'disk'}: Input/output error"
    for ticket in (failing, *queued):
        for _ in range(2):
            with pytest.raises(FilePoolError) as caught:
                settle(ticket)
            assert str(caught.value) == message and "--disk-folder" in caught.value.hint
    for submit in (pool.read, pool.write):
        later = submit(0, aligned(BLOCK))
        assert later.done(), "at once"
        with pytest.raises(FilePoolError, match="Input/output error"):
            settle(later)
    assert not under_way.done()
    reads.open()
    settle(under_way)
    assert pool.written_bytes == 0 and writes.started == [3 * BLOCK]
    pool.close()
    assert num_pool_threads() == 0
    with pytest.raises(FilePoolError, match="Input/output error"):
        settle(pool.read(0, aligned(BLOCK)))


@pytest.mark.parametrize("moved", [0, -1])
def test_a_call_that_moves_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int) -> None:
    pool = FilePool(tmp_path, BLOCK, "disk")
    monkeypatch.setattr(os, "preadv", lambda *_: moved)
    with pytest.raises(FilePoolError, match=r"read of 4096 bytes at offset 0 .*nothing was transferred"):
        settle(pool.read(0, aligned(BLOCK)))
    pool.close()


def test_an_error_that_nobody_foresaw_frees_the_waiters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = FilePool(tmp_path, BLOCK, "disk")

    def surprise(*_: Any) -> int:
        raise RuntimeError("surprise")

    monkeypatch.setattr(os, "preadv", surprise)
    with pytest.raises(FilePoolError, match=r"a transfer failed: RuntimeError\('surprise'\)"):
        settle(pool.read(0, aligned(BLOCK)))
    pool.close()


def test_a_failed_ticket_of_another_pool_fails_what_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = FilePool(tmp_path, BLOCK, "first"), FilePool(tmp_path, BLOCK, "second")
    with monkeypatch.context() as patch:
        fail(patch, "preadv", errno.EIO)
        broken = first.read(0, aligned(BLOCK))
    waiting = second.write(0, aligned(BLOCK), after=[broken])
    with pytest.raises(FilePoolError, match="first: Input/output error"):
        settle(waiting)
    first.close()
    second.close()


def test_close_ends_threads_file_and_waiters(direct_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_pool_threads() == 0
    pool, other = FilePool(direct_folder, 4 * BLOCK, "disk"), FilePool(direct_folder, BLOCK, "other")
    assert num_pool_threads() == 4
    other_write = Gate(monkeypatch, "pwritev")
    never = other.write(0, aligned(BLOCK))
    waiting = [pool.read(0, aligned(BLOCK), after=[never]), pool.read(0, aligned(BLOCK))]
    wait_until(lambda: bool(other_write.started))
    pool.close()
    pool.close()
    for ticket in (*waiting, pool.write(0, aligned(BLOCK))):
        assert ticket.done()
        with pytest.raises(FilePoolError, match="was closed before the transfer"):
            settle(ticket)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pool._descriptor)
    assert num_pool_threads() == 2
    other_write.open()
    settle(never)
    other.close()
    assert num_pool_threads() == 0
