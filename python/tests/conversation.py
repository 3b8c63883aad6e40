"""The controller's side of a conversation with one rank process through real sockets, without TypeScript."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import IO, Any, TypeVar

import zmq

from fpdt.wire import protocol
from fpdt.wire.sockets import Context

TESTS = Path(__file__).resolve().parent
HEADER = json.dumps({"kind": "executionPlan", "version": 2, "device": "cpu"}).encode()
PROSE = b"{}"
COLUMN = b"\x01\x02"
PATIENCE_MS = 300_000
"""Nothing here takes a second; a machine that is busy with something else may need far more."""
WireT = TypeVar("WireT", bound=protocol.Wire)


def bound(context: Context, kind: int, address: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
    socket.bind(address)
    return socket


def run_steps(digest: str, start: int, end: int) -> protocol.RunSteps:
    return protocol.RunSteps(**{"digest": digest, "from": start, "to": end})  # type: ignore[arg-type]


def run_options(data: str) -> protocol.RunOptions:
    """Nothing is asked for but data."""
    nothing: dict[str, Any] = dict.fromkeys(protocol.RunOptions.model_fields)
    return protocol.RunOptions(**{**nothing, "data": data, "poison": False, "record_layers": 0, "trace_steps": []})


class Conversation:
    """One ROUTER, one PULL and one rank process."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str] | None = None,
        worker: str = "echo_worker",
        stderr: int | IO[bytes] = subprocess.PIPE,
    ) -> None:
        self._context: Context = zmq.Context()
        self.router = bound(self._context, zmq.ROUTER, f"ipc://{folder}/c")
        self.pull = bound(self._context, zmq.PULL, f"ipc://{folder}/t")
        self._num_sent = 0
        self.process = subprocess.Popen(
            [
                sys.executable,
                *f"-m {worker} --controller ipc://{folder}/c --telemetry ipc://{folder}/t --run r".split(),
            ],
            env={**os.environ, "RANK": "0", "PYTHONPATH": f"{TESTS.parent}:{TESTS}", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def send(self, body: protocol.Wire, *frames: bytes, seq: int | None = None) -> str:
        number = self._num_sent if seq is None else seq
        head = protocol.make(body, run="r", rank=0, incarnation=0, seq=number)
        self._num_sent = number + 1
        self.router.send_multipart([b"r/0/0", head, *frames])
        return str(json.loads(head)["id"])

    def receive(self, kind: type[WireT]) -> WireT:
        return self.receive_message(kind)[1]

    def receive_message(self, kind: type[WireT]) -> tuple[protocol.Message, WireT]:
        _, head = self.router.recv_multipart()
        message = protocol.parse(head)
        assert message is not None
        assert isinstance(message.body, kind), message
        return message, message.body

    def send_plan(self, data: str = "ok", header: bytes = HEADER, digest: str | None = None) -> str:
        frames = (header, PROSE, zlib.compress(COLUMN))
        found = hashlib.sha256(header + COLUMN).hexdigest()
        names: list[tuple[str, Any]] = [("header", "json"), ("prose", "json"), ("opKind", "uint8")]
        descriptors = [
            protocol.FrameDescriptor(name=name, dtype=dtype, bytes=len(frame))
            for (name, dtype), frame in zip(names, frames, strict=True)
        ]
        plan = protocol.Plan(digest=digest or found, options=run_options(data), frames=descriptors)
        self.send(plan, *frames)
        return found

    def load(self, data: str = "ok") -> str:
        self.receive(protocol.Hello)
        digest = self.send_plan(data)
        assert self.receive(protocol.PlanAccepted).digest == digest
        assert self.receive(protocol.Ready).digest == digest
        return digest

    def wait(self) -> int:
        return self.process.wait(PATIENCE_MS / 1000)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._context.destroy(linger=0)
