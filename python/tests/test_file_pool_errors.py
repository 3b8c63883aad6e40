"""Pools in files: what is refused, errors that free every waiter, and the end."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fpdt.devices.file_pool import FilePool, FilePoolError
from tests.file_pools import BLOCK, Gate, aligned, fail, num_pool_threads, settle, wait_until


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
