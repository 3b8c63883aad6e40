"""A pool in a file: one preallocated, nameless file, and a queue of reads and one of writes.

Each queue is a thread that does one transfer after the other, first in, first out. The file loses its name as soon as
it is open, so that nothing is left behind however the process ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fpdt.devices.nameless_file import ALIGNMENT_BYTES, NO_SPACE, FilePoolError, open_nameless_file, space_hint

__all__ = ["ALIGNMENT_BYTES", "FilePool", "FilePoolError", "Ticket"]

MAX_CALL_BYTES = 64 << 20
"""Of one system call: a transfer that is given up, after an error or at close, ends soon."""
POLL_SECONDS = 0.1

Call = Callable[[int, list[memoryview], int], int]
"""os.preadv or os.pwritev."""


class Ticket:
    """A transfer that was queued."""

    def __init__(self) -> None:
        self._finished = threading.Event()
        self._error: FilePoolError | None = None
        self._lock = threading.Lock()
        self._calls: list[Callable[[FilePoolError | None], None]] = []

    def done(self) -> bool:
        """True once the transfer is complete or has failed."""
        return self._finished.is_set()

    def wait(self) -> None:
        """Blocks until then. Raises the FilePoolError it failed with."""
        self._finished.wait()
        if self._error is not None:
            raise FilePoolError(str(self._error), self._error.hint) from self._error

    def then(self, call: Callable[[FilePoolError | None], None]) -> None:
        """Calls it with the error, or None, when the transfer ends, on the thread that ends it; now, where it has."""
        with self._lock:
            if not self._finished.is_set():
                self._calls.append(call)
                return
        call(self._error)

    def _finish(self, error: FilePoolError | None) -> None:
        with self._lock:
            self._error = error
            self._finished.set()
            calls, self._calls = self._calls, []
        for call in calls:
            call(error)


class FilePool:
    """`num_bytes` of a file in `folder`, called `name` in messages.

    `direct`: whether transfers go past the page cache (O_DIRECT). None takes it where the file system has it, True
    raises FilePoolError where it has not, False does without; the attribute says what came of it. With it the address
    and the length of a tensor and its offset in the file are multiples of ALIGNMENT_BYTES. Raises FilePoolError when
    the file cannot be made.

    After the first transfer that fails, all that are queued or asked for later fail with its error.
    """

    def __init__(self, folder: Path, num_bytes: int, name: str, direct: bool | None = None) -> None:
        self.path = folder / name
        """For messages: there is no such entry."""
        self.num_bytes = num_bytes
        self._descriptor, self.direct = open_nameless_file(folder, num_bytes, name, direct)
        self._lock = threading.Lock()
        self._error: FilePoolError | None = None
        self._is_closed = False
        self._reader = _Queue(f"fpdt-{name}-reader", self._lock, self._fail)
        self._writer = _Queue(f"fpdt-{name}-writer", self._lock, self._fail)

    @property
    def read_bytes(self) -> int:
        """Bytes of all reads completed so far."""
        return self._reader.num_bytes

    @property
    def written_bytes(self) -> int:
        """Bytes of all writes completed so far."""
        return self._writer.num_bytes

    def read(self, offset: int, tensor: Tensor, after: Sequence[Ticket] = ()) -> Ticket:
        """Queues tensor = the file's bytes from `offset` on; the transfer starts when the tickets in `after` are done.

        `tensor` is contiguous uint8 on the CPU and is kept alive. Raises ValueError for one that is not, or that does
        not lie in the file, or is not aligned where `direct` asks for it.
        """
        return self._submit(self._reader, "read", os.preadv, offset, tensor, after)

    def write(self, offset: int, tensor: Tensor, after: Sequence[Ticket] = ()) -> Ticket:
        """Queues the file's bytes from `offset` on = tensor; otherwise as `read`."""
        return self._submit(self._writer, "write", os.pwritev, offset, tensor, after)

    def pass_read(self, after: Sequence[Ticket]) -> Ticket:
        """A read of nothing, in its place among the reads, for who waits for it."""
        return self._queue(self._reader, lambda: 0, after)

    def pass_write(self, after: Sequence[Ticket]) -> Ticket:
        return self._queue(self._writer, lambda: 0, after)

    def close(self) -> None:
        """Ends the threads, after the transfers that are under way, and closes the file; what is still queued fails."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._fail(FilePoolError(f"{self.path} was closed before the transfer", "wait for a ticket before the close"))
        self._reader.stop()
        self._writer.stop()
        os.close(self._descriptor)

    def _submit(
        self, queue: _Queue, verb: str, call: Call, offset: int, tensor: Tensor, after: Sequence[Ticket]
    ) -> Ticket:
        self._check(verb, offset, tensor)

        def transfer() -> int:
            view = memoryview((ctypes.c_ubyte * tensor.numel()).from_address(tensor.data_ptr())).cast("B")
            return self._transfer(verb, call, offset, view)

        return self._queue(queue, transfer, after)

    def _queue(self, queue: _Queue, transfer: Callable[[], int], after: Sequence[Ticket]) -> Ticket:
        ticket = Ticket()
        with self._lock:
            if self._error is None:
                queue.put(_Request(ticket, tuple(after), transfer))
            else:
                ticket._finish(self._error)
        return ticket

    def _check(self, verb: str, offset: int, tensor: Tensor) -> None:
        what = f"{verb} at offset {offset} of {self.path}"
        if tensor.dtype != torch.uint8 or tensor.device.type != "cpu" or not tensor.is_contiguous():
            kind = f"{tensor.dtype} on {tensor.device}" + ("" if tensor.is_contiguous() else ", not contiguous")
            raise ValueError(f"{what}: expected a contiguous uint8 tensor on the cpu, got {kind}")
        if offset < 0 or tensor.numel() == 0 or offset + tensor.numel() > self.num_bytes:
            raise ValueError(f"{what}: {tensor.numel()} bytes are not inside the {self.num_bytes} bytes of the file")
        place = {"address": tensor.data_ptr(), "length": tensor.numel(), "offset": offset}
        uneven = [f"{name} {value}" for name, value in place.items() if value % ALIGNMENT_BYTES]
        if self.direct and uneven:
            raise ValueError(
                f"{what}: {', '.join(uneven)} must be a multiple of {ALIGNMENT_BYTES} for direct transfers"
            )

    def _transfer(self, verb: str, call: Call, offset: int, view: memoryview) -> int:
        done = 0
        while done < len(view):
            try:
                moved = call(self._descriptor, [view[done : done + MAX_CALL_BYTES]], offset + done)
            except OSError as error:
                raise self._failed(verb, offset + done, len(view) - done, error) from error
            if moved <= 0:
                raise self._failed(verb, offset + done, len(view) - done, OSError(errno.EIO, "nothing was transferred"))
            done += moved
        return done

    def _failed(self, verb: str, offset: int, num_bytes: int, error: OSError) -> FilePoolError:
        hint = "see the kernel's log for the disk, or choose another --disk-folder"
        if error.errno in NO_SPACE:
            hint = space_hint(self._descriptor, num_bytes)
        return FilePoolError(f"{verb} of {num_bytes} bytes at offset {offset} of {self.path}: {error.strerror}", hint)

    def _fail(self, error: FilePoolError) -> None:
        """The first error ends both queues: nobody waits for a transfer that will not come."""
        with self._lock:
            if self._error is None:
                self._error = error
            self._reader.drain(self._error)
            self._writer.drain(self._error)


class _Request:
    def __init__(self, ticket: Ticket, after: tuple[Ticket, ...], transfer: Callable[[], int]) -> None:
        self.ticket = ticket
        self.after = after
        self.transfer = transfer


class _Queue:
    """A thread and the requests it has yet to start. `lock` guards the requests of both queues of a pool."""

    def __init__(self, name: str, lock: threading.Lock, fail: Callable[[FilePoolError], None]) -> None:
        self.num_bytes = 0
        self._fail = fail
        self._changed = threading.Condition(lock)
        self._requests: deque[_Request] = deque()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, request: _Request) -> None:
        """With the lock held."""
        self._requests.append(request)
        self._changed.notify()

    def drain(self, error: FilePoolError) -> None:
        """With the lock held: everything that has not started fails."""
        while self._requests:
            self._requests.popleft().ticket._finish(error)

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """One request; a function of its own, so that an idle thread holds on to no tensor. False: stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._requests or self._is_stopped)
            if not self._requests:
                return False
            request = self._requests[0]
        self._wait_for_earlier(request)
        with self._changed:
            if not self._requests or self._requests[0] is not request:
                return True
            self._requests.popleft()
        self._complete(request)
        return True

    def _wait_for_earlier(self, request: _Request) -> None:
        """Until they are done or the request is drained; looks up now and then, as a ticket may be another pool's."""
        for ticket in request.after:
            while not ticket._finished.wait(POLL_SECONDS):
                if request.ticket.done():
                    return

    def _complete(self, request: _Request) -> None:
        try:
            failed = next((ticket._error for ticket in request.after if ticket._error is not None), None)
            if failed is not None:
                raise failed
            self.num_bytes += request.transfer()
        except BaseException as error:
            known = error if isinstance(error, FilePoolError) else FilePoolError(f"a transfer failed: {error!r}")
            request.ticket._finish(known)
            self._fail(known)
        else:
            request.ticket._finish(None)
