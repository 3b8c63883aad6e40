"""A rank as a process, driven through real sockets: the controller's side of the conversation, without TypeScript."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from fpdt.plan.header import PLAN_VERSION
from fpdt.wire import plan_frames, protocol, rank_loop, telemetry_batch
from fpdt.wire.exits import EXIT_ABORTED
from fpdt.wire.lifeline import Lifeline
from fpdt.wire.sockets import Channel, Context, Identity
from tests.conversation import COLUMN, HEADER, Conversation, bound, run_options, run_steps


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
        batch = telemetry_batch.parse_batch(controller.pull.recv())
        assert (batch.seq, batch.dropped) == (seq, 0)
        ops += sum(isinstance(record, telemetry_batch.OpRecord) for record in batch.records)
        if ops == 300:
            break
    assert ops == 300


def test_records_are_dropped_and_counted_when_nobody_reads(tmp_path: Path) -> None:
    context: Context = zmq.Context()
    router = bound(context, zmq.ROUTER, f"ipc://{tmp_path}/c")
    channel = Channel(f"ipc://{tmp_path}/c", f"ipc://{tmp_path}/t", Identity("r", 0, 0), Lifeline.of_process({}))
    try:
        record = telemetry_batch.MemoryRecord(step=0, pool="hbm", ts_us=0, bytes=1)
        for _ in range(1200):
            channel.send_telemetry([record])
        channel.send(protocol.Bye(num_steps=0))
        while json.loads(router.recv_multipart()[1])["type"] != "bye":
            pass
        pull = bound(context, zmq.PULL, f"ipc://{tmp_path}/t")
        kept = [telemetry_batch.parse_batch(pull.recv()) for _ in range(1000)]
        assert [batch.seq for batch in kept] == list(range(1000))
        channel.send_telemetry([record])
        late = telemetry_batch.parse_batch(pull.recv())
        assert (late.seq, late.dropped) == (1200, 200)
    finally:
        channel.close()
        context.destroy(linger=0)


def test_columns_that_are_not_deflated_are_refused() -> None:
    with pytest.raises(plan_frames.PlanRefusedError, match="cannot be inflated"):
        plan_frames.plan_digest(HEADER, [COLUMN])


def test_a_plan_without_its_prose_is_refused() -> None:
    header = protocol.FrameDescriptor(name="header", dtype="json", bytes=len(HEADER))
    plan = protocol.Plan(digest="0" * 64, options=run_options(""), frames=[header])
    with pytest.raises(plan_frames.PlanRefusedError, match="header and prose first"):
        plan_frames.check_plan(plan, [HEADER])


def test_the_version_that_is_checked_first_is_the_one_that_is_read() -> None:
    assert PLAN_VERSION == plan_frames.PLAN_VERSION


def test_factories_are_found_by_name() -> None:
    assert rank_loop.load_factory("echo_session:create").__name__ == "create"
    with pytest.raises(TypeError, match="module:attribute"):
        rank_loop.load_factory("echo_session:nothing")
