"""A file pool on queues of a made-up device: a transfer waits for what the runtime tells it to, and for no more."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fpdt.devices.file_pool import POLL_SECONDS, FilePool, FilePoolError, Ticket
from fpdt.plan import Pool
from fpdt.testing.fake_cuda.device import Clock, Command, Device, Stream


def made_up_files(pools: Sequence[Pool], device: Device) -> Mapping[str, FilePool]:
    """By name, a pool for each that is a file."""
    # A FilePool is what it is used as; its threads and its descriptor are what must not be here.
    made: dict[str, Any] = {pool.name: MadeUpFile(pool.bytes, device) for pool in pools if pool.kind == "file"}
    return made


class MadeUpFile:
    """What a runtime uses of a FilePool. Reads have one order, writes another."""

    def __init__(self, num_bytes: int, device: Device) -> None:
        self.num_bytes = num_bytes
        self.is_closed = False
        # Not of PyTorch's, whose allocations are counted.
        self._bytes = torch.frombuffer(bytearray(max(num_bytes, 1)), dtype=torch.uint8)
        self._reads, self._writes = Stream(device, is_file=True), Stream(device, is_file=True)

    def read(self, offset: int, tensor: Tensor, after: Sequence[Ticket] = ()) -> Ticket:
        mine = self._bytes[offset : offset + tensor.numel()]
        return _queued(self._reads, lambda: _move(tensor, mine), after)

    def write(self, offset: int, tensor: Tensor, after: Sequence[Ticket] = ()) -> Ticket:
        mine = self._bytes[offset : offset + tensor.numel()]
        return _queued(self._writes, lambda: _move(mine, tensor), after)

    def pass_read(self, after: Sequence[Ticket]) -> Ticket:
        return _queued(self._reads, _do_nothing, after)

    def pass_write(self, after: Sequence[Ticket]) -> Ticket:
        return _queued(self._writes, _do_nothing, after)

    def close(self) -> None:
        self.is_closed = True
        for queue in (self._reads, self._writes):
            queue.complete()


class MadeUpTicket(Ticket):
    """`clock` holds the transfer itself too, which is work of the stream `queue`."""

    def __init__(self, command: Command, queue: Stream) -> None:
        super().__init__()
        self.queue, self.clock = queue.number, queue.clock.copy()
        self._command, self._device = command, queue.device
        self._finished = _Finished(command, self.clock, queue.device)

    def then(self, call: Callable[[FilePoolError | None], None]) -> None:
        """A file has no thread here that could do it later, when the one of the tests waits for its end: it is now."""
        with self._device.unseen():
            self._command.complete()
        call(None)


class _Finished(threading.Event):
    """Set when the transfer is done; what the host has seen to be done comes before what it does next."""

    def __init__(self, command: Command, clock: Clock, device: Device) -> None:
        super().__init__()
        self._command, self._clock, self._device = command, clock, device

    def is_set(self) -> bool:
        if self._command.is_done:
            self._device.host |= self._clock
        return self._command.is_done

    def wait(self, timeout: float | None = None) -> bool:
        self._device.note_wait("wait for file")
        self._command.complete()
        self._device.host |= self._clock
        return True


class _TicketNeed:
    """A ticket that a file's thread waits for, as FilePool's do; the host knows nothing of it."""

    def __init__(self, ticket: Ticket, device: Device) -> None:
        self._ticket, self._device = ticket, device

    @property
    def is_done(self) -> bool:
        with self._device.unseen():
            return self._ticket.done()

    def complete(self) -> None:
        with self._device.unseen():
            if not self._ticket._finished.wait(POLL_SECONDS):
                raise RuntimeError("a file's thread would wait for ever")
            if self._ticket._error is not None:
                raise self._ticket._error


def _queued(queue: Stream, work: Callable[[], None], after: Sequence[Ticket]) -> MadeUpTicket:
    for ticket in after:
        queue.clock |= clock_of(ticket)
    needs = [_TicketNeed(ticket, queue.device) for ticket in after]
    command = queue.queue_work(work, needs)
    return MadeUpTicket(command, queue)


def clock_of(ticket: Ticket) -> Clock:
    """Of an event's ticket what was on its stream when it was made."""
    if isinstance(ticket, MadeUpTicket):
        return ticket.clock
    event = getattr(ticket._finished, "_event", None)
    return Counter() if event is None else event.clock


def _do_nothing() -> None:
    """A transfer that is left out."""


def _move(out: Tensor, source: Tensor) -> None:
    out.copy_(source)
