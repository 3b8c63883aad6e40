"""The main thread of a rank: receive a plan, build its session, run steps, report. Decides nothing."""

from __future__ import annotations

import hashlib
import importlib
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol, cast

from fpdt.wire import protocol
from fpdt.wire.channel import Channel, Identity, Incoming, Telemetry, exit_now, failure
from fpdt.wire.lifeline import die_with_parent

PLAN_VERSION = 1
DEVICES = ("cpu", "cuda")
ERROR_SEEN_SECONDS = 5.0


class Session(Protocol):
    """A built model and engine that executes the steps of one plan."""

    @property
    def digest(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def versions(self) -> Mapping[str, str]: ...

    def run_step(self, step: int) -> Mapping[str, Any]:
        """Run one optimizer step. Keys: those of protocol.StepDone without `step`, and optionally `records`."""
        ...

    def close(self) -> None: ...


SessionFactory = Callable[[bytes, Mapping[str, bytes], Mapping[str, Any]], Session]


class PlanRefusedError(Exception):
    """This worker cannot run the plan it was sent."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def serve(
    address: str,
    telemetry: str,
    run: str,
    rank: int,
    incarnation: int,
    session_factory: str | SessionFactory,
) -> NoReturn:
    """Connect to the controller, work until it says shutdown, and leave the process.

    `session_factory` is a callable or `module:attribute`; it is imported only when a plan has been accepted, so that
    hello goes out before torch is loaded. It takes (header bytes, columns by name, options) and returns a Session.
    """
    die_with_parent()
    channel = Channel(address, telemetry, Identity(run, rank, incarnation))
    code = run_rank(channel, session_factory)
    channel.close()
    exit_now(code)
    raise AssertionError("exit_now returned")


def run_rank(channel: Channel, session_factory: str | SessionFactory) -> int:
    """Serve until shutdown; the exit code."""
    try:
        _serve_messages(channel, session_factory)
    except BaseException as error:
        traceback.print_exception(error)
        channel.send(failure(error, channel.status))
        # The controller answers an error by stopping this process; leaving before would race with its exit event.
        deadline = time.monotonic() + ERROR_SEEN_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            channel.receive(left)  # Steps sent ahead are not run any more.
        return 1
    return 0


def _serve_messages(channel: Channel, session_factory: str | SessionFactory) -> None:
    session: Session | None = None
    num_steps = 0
    channel.enter("waiting")
    while True:
        incoming = channel.receive()
        if incoming is None:
            continue
        body = incoming.message.body
        if isinstance(body, protocol.Plan):
            if session is not None:
                raise PlanRefusedError("a second plan was sent", "start a new run for another plan")
            session = _load(channel, body, incoming, session_factory)
        elif isinstance(body, protocol.RunSteps):
            num_steps += _run_steps(channel, session, body, incoming.message.id)
        elif isinstance(body, protocol.Shutdown):
            channel.enter("closing")
            if session is not None:
                session.close()
            channel.send(protocol.Bye(num_steps=num_steps), incoming.message.id)
            return
        else:
            raise protocol.ProtocolError(f"a rank cannot be sent {incoming.message.type}")


def _load(channel: Channel, plan: protocol.Plan, incoming: Incoming, session_factory: str | SessionFactory) -> Session:
    started = time.monotonic()
    header, columns = check_plan(plan, incoming.frames)
    channel.send(protocol.PlanAccepted(digest=plan.digest), incoming.message.id)
    channel.enter("loading")
    create = load_factory(session_factory)
    session = create(header, columns, plan.options.model_dump(by_alias=False))
    if session.digest != plan.digest:
        raise PlanRefusedError(
            f"the session decoded digest {session.digest}, the plan says {plan.digest}",
            "install the npm and the Python package in the same version",
        )
    channel.enter("waiting")
    seconds = time.monotonic() - started
    channel.send(
        protocol.Ready(digest=plan.digest, device=session.device, versions=dict(session.versions), seconds=seconds)
    )
    return session


def _run_steps(channel: Channel, session: Session | None, body: protocol.RunSteps, corr: str) -> int:
    if session is None or session.digest != body.digest:
        held = session.digest if session else "none"
        raise PlanRefusedError(f"asked to run steps of plan {body.digest}, loaded is {held}", "send the plan first")
    for step in range(body.from_, body.to):
        channel.enter("stepping", step)
        result = dict(session.run_step(step))
        records = cast("Telemetry", result.pop("records", ()))
        channel.send(protocol.StepDone(step=step, **result), corr)
        channel.send_telemetry(records)
    channel.enter("waiting")
    return body.to - body.from_


def check_plan(plan: protocol.Plan, frames: Sequence[bytes]) -> tuple[bytes, dict[str, bytes]]:
    """The header and the columns by name. Raises PlanRefusedError before anything heavy is imported."""
    expected = [frame.bytes for frame in plan.frames]
    found = [len(frame) for frame in frames]
    if expected != found or not frames or plan.frames[0].dtype != "json":
        raise PlanRefusedError(
            f"the plan message announces frames of {expected} bytes, received {found}", "send the plan again"
        )
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame)
    if digest.hexdigest() != plan.digest:
        raise PlanRefusedError(
            f"plan digest is {digest.hexdigest()}, the controller says {plan.digest}",
            "plan again: the plan was changed after it was made",
        )
    check_header(json.loads(frames[0]))
    return frames[0], {frame.name: data for frame, data in zip(plan.frames[1:], frames[1:], strict=True)}


def check_header(header: Mapping[str, Any]) -> None:
    """Refuse a plan of another version, for another kind of device, or with ops this worker has no handler for."""
    if header.get("kind") != "executionPlan" or header.get("version") != PLAN_VERSION:
        raise PlanRefusedError(
            f"plan version {header.get('version')} of kind {header.get('kind')}, this worker runs {PLAN_VERSION}",
            "install the npm and the Python package in the same version",
        )
    device = header.get("cluster", {}).get("device")
    if device not in DEVICES:
        raise PlanRefusedError(f"plan is for device {device!r}", f"this worker runs on {' or '.join(DEVICES)}")


def load_factory(factory: str | SessionFactory) -> SessionFactory:
    """Resolve `module:attribute`; a callable is returned as it is."""
    if not isinstance(factory, str):
        return factory
    module_name, _, attribute = factory.partition(":")
    found: Any = getattr(importlib.import_module(module_name), attribute, None)
    if not callable(found):
        raise TypeError(f"session factory {factory} is not callable; give it as module:attribute")
    return cast("SessionFactory", found)
