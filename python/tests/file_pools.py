"""What the tests of file pools share: memory that direct transfers take, patience, a gate, faults."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fpdt.devices.file_pool import ALIGNMENT_BYTES, Ticket

BLOCK = ALIGNMENT_BYTES
PATIENCE_SECONDS = 60.0


def aligned(num_bytes: int) -> Tensor:
    """Zeroed memory of its own pages."""
    return torch.frombuffer(mmap.mmap(-1, num_bytes), dtype=torch.uint8)


def filled(num_bytes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return aligned(num_bytes).copy_(torch.randint(0, 256, (num_bytes,), dtype=torch.uint8, generator=generator))


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.001)


def settle(ticket: Ticket) -> None:
    """ticket.wait(), which must return."""
    wait_until(ticket.done)
    ticket.wait()


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


def fail(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    def failing(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, name, failing)


def num_pool_threads() -> int:
    return sum(thread.name.startswith("fpdt-") for thread in threading.enumerate())
