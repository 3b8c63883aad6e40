"""The socket thread of a rank: it owns the sockets and answers even while Python computes.

Roughly: it says hello before torch is imported, answers ping and abort by itself, hands every other message to the
main thread and sends what the main thread wants sent. Nothing is ever pickled. It also watches the controller, so it
must not be missing: the process ends with it.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import queue
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import zmq

from fpdt.version import VERSION
from fpdt.wire import protocol, telemetry_batch
from fpdt.wire.exits import EXIT_ABORTED, EXIT_COMMS_FAILED, EXIT_ORPHANED, exit_now
from fpdt.wire.lifeline import ORPHANED, Lifeline

MAX_RECORDS_PER_BATCH = 256
MAX_MESSAGE_BYTES = 256 * 2**20
PARENT_POLL_MS = 200
FLUSH_MS = 2000
CAPABILITIES = ["stacks", "telemetry"]


@dataclass(frozen=True)
class Identity:
    run: str
    rank: int
    incarnation: int

    def encode(self) -> bytes:
        return f"{self.run}/{self.rank}/{self.incarnation}".encode()


@dataclass(frozen=True)
class Status:
    """`since` is of time.monotonic: a clock that is set back must not make a phase begin in the future."""

    phase: protocol.Phase
    step: int | None
    since: float


@dataclass(frozen=True)
class Incoming:
    message: protocol.Message
    frames: list[bytes]


@dataclass(frozen=True)
class Outgoing:
    body: protocol.Wire
    corr: str | None


Context = zmq.Context[zmq.Socket[bytes]]
Telemetry = Sequence[telemetry_batch.Record]


class Channel:
    """What the main thread sees of the socket thread: two queues, and an inproc socket that wakes the thread."""

    def __init__(self, control: str, telemetry: str, identity: Identity, lifeline: Lifeline) -> None:
        self._context = zmq.Context()
        self._incoming: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
        self._outgoing: queue.SimpleQueue[Outgoing | Telemetry | None] = queue.SimpleQueue()
        self._status = Status("starting", None, time.monotonic())
        self.is_stopping = False
        """Heard by the socket thread, while the main one may be in the middle of a step."""
        self._wake = self._context.socket(zmq.PUSH)
        self._wake.setsockopt(zmq.SNDHWM, 0)
        self._wake.bind("inproc://wake")
        self._thread = threading.Thread(
            target=self._run_thread, args=(control, telemetry, identity, lifeline), name="fpdt-sockets", daemon=True
        )
        self._thread.start()

    @property
    def status(self) -> Status:
        return self._status

    def enter(self, phase: protocol.Phase, step: int | None = None) -> None:
        """Say what the main thread does now: answered to ping, and a telemetry record."""
        self._status = Status(phase, step, time.monotonic())
        self.send_telemetry([telemetry_batch.PhaseRecord(phase=phase, step=step, ts_us=time.time_ns() // 1000)])

    def receive(self, timeout_seconds: float | None = None) -> Incoming | None:
        """The next message for the main thread; None when the time is over."""
        try:
            return self._incoming.get(timeout=timeout_seconds)
        except queue.Empty:
            return None

    def send(self, body: protocol.Wire, corr: str | None = None) -> None:
        self._put(Outgoing(body, corr))

    def send_telemetry(self, records: Telemetry) -> None:
        """Never blocks and may lose records, which are counted."""
        for start in range(0, len(records), MAX_RECORDS_PER_BATCH):
            self._put(records[start : start + MAX_RECORDS_PER_BATCH])

    def close(self) -> None:
        """Hand everything over to the controller, for at most FLUSH_MS, and end the thread."""
        self._put(None)
        self._thread.join()
        self._wake.close(0)
        self._context.term()

    def _put(self, item: Outgoing | Telemetry | None) -> None:
        self._outgoing.put(item)
        self._wake.send(b"")

    def _run_thread(self, control: str, telemetry: str, identity: Identity, lifeline: Lifeline) -> None:
        try:
            loop = SocketLoop(self._context, control, telemetry, identity, lifeline, self)
            loop.run(self._incoming, self._outgoing)
        except BaseException as error:
            exit_now(EXIT_COMMS_FAILED, "fpdt: the socket thread failed", error)


class SocketLoop:
    """Lives in the socket thread, with the only references to its sockets."""

    def __init__(
        self,
        context: Context,
        control: str,
        telemetry: str,
        identity: Identity,
        lifeline: Lifeline,
        channel: Channel,
    ) -> None:
        self._identity = identity
        self._lifeline = lifeline
        self._channel = channel
        self._control = connect(context, zmq.DEALER, control, identity.encode())
        self._telemetry = connect(context, zmq.PUSH, telemetry, None)
        self._wake = context.socket(zmq.PULL)
        self._wake.connect("inproc://wake")
        self._num_sent = 0
        self._last_seen = -1
        self._num_batches = 0
        self._num_dropped = 0

    def run(
        self,
        incoming: queue.SimpleQueue[Incoming],
        outgoing: queue.SimpleQueue[Outgoing | Telemetry | None],
    ) -> None:
        self._send(hello())
        poller = zmq.Poller()
        poller.register(self._control, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        while True:
            ready = dict(poller.poll(PARENT_POLL_MS))
            if self._lifeline.is_cut():
                exit_now(EXIT_ORPHANED, ORPHANED)
            if self._control in ready:
                self._receive(incoming)
            if self._wake in ready:
                self._wake.recv()
                item = outgoing.get()
                if item is None:
                    break
                self._send_item(item)
        for socket in (self._control, self._telemetry):
            socket.close(FLUSH_MS)
        self._wake.close(0)

    def _receive(self, incoming: queue.SimpleQueue[Incoming]) -> None:
        head, *frames = self._control.recv_multipart()
        try:
            message = protocol.parse(head)
        except protocol.ProtocolError as error:
            self._send(failure(error, self._channel.status))
            return
        if message is None or not self._is_for_us(message):
            return
        self._last_seen = message.seq
        if isinstance(message.body, protocol.Ping):
            self._answer(message.body, message.id)
        elif isinstance(message.body, protocol.Abort):
            exit_now(EXIT_ABORTED, f"fpdt: aborted: {message.body.reason}")
        else:
            if isinstance(message.body, protocol.Stop):
                self._channel.is_stopping = True
            incoming.put(Incoming(message, frames))

    def _is_for_us(self, message: protocol.Message) -> bool:
        address = Identity(message.run, message.rank, message.incarnation)
        return address == self._identity and message.seq > self._last_seen

    def _answer(self, ping: protocol.Ping, corr: str) -> None:
        if ping.stacks:
            with suppress(Exception):  # Standard error may be closed.
                faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        status = self._channel.status
        since_us = round((time.monotonic() - status.since) * 1e6)
        self._send(protocol.Pong(phase=status.phase, step=status.step, since_us=since_us), corr)

    def _send_item(self, item: Outgoing | Telemetry) -> None:
        if isinstance(item, Outgoing):
            self._send(item.body, item.corr)
        else:
            self._push(item)

    def _send(self, body: protocol.Wire, corr: str | None = None) -> None:
        me = self._identity
        frame = protocol.make(body, run=me.run, rank=me.rank, incarnation=me.incarnation, seq=self._num_sent, corr=corr)
        self._num_sent += 1
        # Never waits: a controller that leaves a full queue unread is as good as gone, and this thread must look on.
        self._control.send(frame, zmq.DONTWAIT)

    def _push(self, records: Telemetry) -> None:
        me = self._identity
        batch = telemetry_batch.TelemetryBatch(
            v=protocol.PROTOCOL_VERSION,
            run=me.run,
            rank=me.rank,
            incarnation=me.incarnation,
            seq=self._num_batches,
            dropped=self._num_dropped,
            records=list(records),
        )
        self._num_batches += 1
        try:
            self._telemetry.send(batch.model_dump_json(by_alias=True).encode(), zmq.DONTWAIT)
        except zmq.Again:
            self._num_dropped += len(records)


def connect(context: Context, kind: int, address: str, identity: bytes | None) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(kind)
    if identity is not None:
        socket.setsockopt(zmq.IDENTITY, identity)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, 1000)
    socket.setsockopt(zmq.RCVHWM, 1000)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
    socket.connect(address)
    return socket


def hello() -> protocol.Hello:
    return protocol.Hello(
        protocol=protocol.SUPPORTED_PROTOCOLS,
        version=VERSION,
        pid=os.getpid(),
        python=platform.python_version(),
        capabilities=CAPABILITIES,
    )


def failure(error: BaseException, status: Status) -> protocol.Error:
    """The error message for an exception; `hint` is taken from an attribute of that name."""
    hint = getattr(error, "hint", None)
    return protocol.Error(
        kind=type(error).__name__,
        message=str(error),
        traceback="".join(traceback.format_exception(error)),
        hint=hint if isinstance(hint, str) else None,
        phase=status.phase,
        step=status.step,
    )
