"""A rank as a process, driven through real sockets: the controller's side of the conversation, without TypeScript."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import pytest
import zmq

from fpdt.plan.header import PLAN_VERSION
from fpdt.wire import protocol, rank_loop
from fpdt.wire.exits import EXIT_ABORTED, EXIT_COMMS_FAILED, EXIT_ORPHANED
from fpdt.wire.lifeline import CONTROLLER_PID_VARIABLE, Controller, Lifeline
from fpdt.wire.sockets import Channel, Context, Identity

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
        options = protocol.RunOptions(
            data=data,
            dump_grads=None,
            copy_mode=None,
            poison=False,
            seed=None,
            disk_folder=None,
            disk_direct=None,
            record_layers=0,
            trace_steps=[],
            trace_folder=None,
        )
        self.send(protocol.Plan(digest=digest or found, options=options, frames=descriptors), *frames)
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


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Conversation]:
    made = Conversation(tmp_path)
    yield made
    made.close()


def test_a_whole_run(controller: Conversation) -> None:
    digest = controller.load()
    controller.send(run_steps(digest, 0, 2))
    assert [controller.receive(protocol.StepDone).loss for _ in range(2)] == [10.0, 9.0]
    asked = controller.send(protocol.Shutdown(reason="done"))
    message, bye = controller.receive_message(protocol.Bye)
    assert (bye.num_steps, message.corr) == (2, asked)
    assert controller.wait() == 0


def test_ping_is_answered_while_the_main_thread_computes(controller: Conversation) -> None:
    digest = controller.load("hang@0:0")
    controller.send(run_steps(digest, 0, 1))
    assert controller.process.stdout is not None
    assert controller.process.stdout.readline() == "hanging\n"
    controller.send(protocol.Ping(stacks=True))
    pong = controller.receive(protocol.Pong)
    assert (pong.phase, pong.step) == ("stepping", 0)
    controller.send(protocol.Abort(reason="enough"))
    assert controller.wait() == EXIT_ABORTED
    assert controller.process.stderr is not None
    stderr = controller.process.stderr.read()
    assert "in run_step" in stderr
    assert "fpdt: aborted: enough" in stderr


def test_an_exception_is_reported_with_its_place_although_more_steps_are_queued(controller: Conversation) -> None:
    digest = controller.load("raise@0:1")
    for step in range(3):
        controller.send(run_steps(digest, step, step + 1))
    controller.receive(protocol.StepDone)
    error = controller.receive(protocol.Error)
    assert (error.kind, error.phase, error.step) == ("ValueError", "stepping", 1)
    assert error.traceback is not None
    assert "echo_session.py" in error.traceback
    assert controller.wait() == 1


@pytest.mark.parametrize(
    ("header", "digest", "message"),
    [
        ({"version": 0}, None, "plan version 0"),
        ({"kind": "somethingElse"}, None, "of kind somethingElse"),
        ({"device": "tpu"}, None, "device 'tpu'"),
        ({}, "0" * 64, "the controller says 0000"),
    ],
)
def test_a_plan_it_cannot_run_is_refused(
    controller: Conversation, header: dict[str, Any], digest: str | None, message: str
) -> None:
    controller.receive(protocol.Hello)
    controller.send_plan(header=json.dumps({**json.loads(HEADER), **header}).encode(), digest=digest)
    error = controller.receive(protocol.Error)
    assert error.kind == "PlanRefusedError"
    assert message in error.message
    assert error.hint is not None


def test_steps_without_the_plan_are_refused(controller: Conversation) -> None:
    controller.receive(protocol.Hello)
    controller.send(run_steps("0" * 64, 0, 1))
    assert "loaded is none" in controller.receive(protocol.Error).message


def test_a_message_seen_before_is_ignored(controller: Conversation) -> None:
    controller.receive(protocol.Hello)
    controller.send(protocol.Ping(stacks=False), seq=5)
    controller.receive(protocol.Pong)
    controller.send(protocol.Ping(stacks=False), seq=5)
    asked = controller.send(protocol.Ping(stacks=False), seq=6)
    assert controller.receive_message(protocol.Pong)[0].corr == asked


def test_a_malformed_message_is_answered_with_an_error(controller: Conversation) -> None:
    controller.receive(protocol.Hello)
    controller.router.send_multipart([b"r/0/0", b"{}"])
    assert controller.receive(protocol.Error).kind == "ProtocolError"


def test_telemetry_is_numbered_and_complete(controller: Conversation) -> None:
    digest = controller.load()
    controller.send(run_steps(digest, 0, 1))
    controller.receive(protocol.StepDone)
    ops = 0
    for seq in range(100):
        batch = protocol.parse_batch(controller.pull.recv())
        assert (batch.seq, batch.dropped) == (seq, 0)
        ops += sum(isinstance(record, protocol.OpRecord) for record in batch.records)
        if ops == 300:
            break
    assert ops == 300


def test_records_are_dropped_and_counted_when_nobody_reads(tmp_path: Path) -> None:
    context: Context = zmq.Context()
    router = bound(context, zmq.ROUTER, f"ipc://{tmp_path}/c")
    channel = Channel(f"ipc://{tmp_path}/c", f"ipc://{tmp_path}/t", Identity("r", 0, 0), Lifeline.of_process({}))
    try:
        record = protocol.MemoryRecord(step=0, pool="hbm", ts_us=0, bytes=1)
        for _ in range(1200):
            channel.send_telemetry([record])
        channel.send(protocol.Bye(num_steps=0))
        while json.loads(router.recv_multipart()[1])["type"] != "bye":
            pass
        pull = bound(context, zmq.PULL, f"ipc://{tmp_path}/t")
        kept = [protocol.parse_batch(pull.recv()) for _ in range(1000)]
        assert [batch.seq for batch in kept] == list(range(1000))
        channel.send_telemetry([record])
        late = protocol.parse_batch(pull.recv())
        assert (late.seq, late.dropped) == (1200, 200)
    finally:
        channel.close()
        context.destroy(linger=0)


def test_columns_that_are_not_deflated_are_refused() -> None:
    with pytest.raises(rank_loop.PlanRefusedError, match="cannot be inflated"):
        rank_loop.plan_digest(HEADER, [COLUMN])


def test_a_plan_without_its_prose_is_refused() -> None:
    header = protocol.FrameDescriptor(name="header", dtype="json", bytes=len(HEADER))
    options = {"data": "", "poison": False, "record_layers": 0, "trace_steps": []}
    nothing = dict.fromkeys(("dump_grads", "copy_mode", "seed", "disk_folder", "disk_direct", "trace_folder"))
    plan = protocol.Plan(digest="0" * 64, options=protocol.RunOptions(**options, **nothing), frames=[header])  # type: ignore[arg-type]
    with pytest.raises(rank_loop.PlanRefusedError, match="header and prose first"):
        rank_loop.check_plan(plan, [HEADER])


def unread_pipe(how: str) -> int:
    """The end to write to of a pipe: one that nobody can read from any more, or that nobody reads and that is full."""
    reader, writer = os.pipe()
    if how == "reader gone":
        os.close(reader)
        return writer
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"." * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return writer


@pytest.mark.parametrize("streams", ["reader gone", "full", "closed"])
def test_a_rank_ends_when_its_controller_is_gone_and_nobody_hears_it(streams: str, tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    stderr = unread_pipe("full" if streams == "full" else "reader gone")
    environment = {CONTROLLER_PID_VARIABLE: str(stranger.pid), "BREAK_STDERR": streams}
    controller = Conversation(tmp_path, environment, "broken_worker", stderr)
    try:
        controller.receive(protocol.Hello)
        stranger.kill()
        stranger.wait()
        assert controller.wait() == EXIT_ORPHANED
    finally:
        os.close(stderr)
        stranger.kill()
        controller.close()


@pytest.mark.parametrize("streams", ["reader gone", "full", "closed"])
@pytest.mark.parametrize("where", ["at once", "on ping"])
def test_a_rank_ends_with_its_socket_thread(streams: str, where: str, tmp_path: Path) -> None:
    stderr = unread_pipe("full" if streams == "full" else "reader gone")
    controller = Conversation(tmp_path, {"BREAK_STDERR": streams, "BREAK_THREAD": where}, "broken_worker", stderr)
    try:
        if where == "on ping":
            controller.receive(protocol.Hello)
            controller.send(protocol.Ping(stacks=False))
        assert controller.wait() == EXIT_COMMS_FAILED
    finally:
        os.close(stderr)
        controller.close()


def test_a_failed_socket_thread_says_why(tmp_path: Path) -> None:
    controller = Conversation(tmp_path, {"BREAK_THREAD": "at once"}, "broken_worker")
    try:
        assert controller.wait() == EXIT_COMMS_FAILED
        assert controller.process.stderr is not None
        stderr = controller.process.stderr.read()
        assert "fpdt: the socket thread failed" in stderr
        assert "broken_worker.py" in stderr
    finally:
        controller.close()


def test_a_rank_whose_controller_died_before_it_looked_ends(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    controller = Conversation(tmp_path, {CONTROLLER_PID_VARIABLE: str(gone.pid)})
    try:
        assert controller.wait() == EXIT_ORPHANED
    finally:
        controller.close()


def test_a_controller_that_is_a_zombie_or_another_process_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        controller = Controller.of_pid(process.pid)
        assert controller.is_alive()
        assert not Controller(process.pid, (controller.start_ticks or 0) + 1).is_alive()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # It has ended, and nobody has read its exit code.
        assert not controller.is_alive()
    finally:
        process.wait()


def test_lifeline_of_a_living_controller_is_not_cut() -> None:
    assert not Lifeline.of_process({}).is_cut()
    assert not Lifeline.of_process({CONTROLLER_PID_VARIABLE: str(os.getppid())}).is_cut()
    assert Lifeline(os.getppid() + 1, None).is_cut()


def test_the_version_that_is_checked_first_is_the_one_that_is_read() -> None:
    assert PLAN_VERSION == rank_loop.PLAN_VERSION


def test_factories_are_found_by_name() -> None:
    assert rank_loop.load_factory("echo_session:create").__name__ == "create"
    with pytest.raises(TypeError, match="module:attribute"):
        rank_loop.load_factory("echo_session:nothing")
