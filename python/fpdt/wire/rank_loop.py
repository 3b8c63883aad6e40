"""The main thread of a rank: receive a plan, build its session, run steps, report. Decides nothing."""

from __future__ import annotations

import importlib
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn, Protocol, cast

from fpdt.errors import StopAgreed, is_explained
from fpdt.wire import protocol
from fpdt.wire.exits import EXIT_FAILED, exit_now
from fpdt.wire.lifeline import die_with_parent
from fpdt.wire.plan_frames import PlanRefusedError, check_plan
from fpdt.wire.sockets import Channel, Identity, Incoming, Telemetry, failure

ERROR_SEEN_SECONDS = 5.0


class Session(Protocol):
    """A built model and engine that executes the steps of one plan."""

    @property
    def digest(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def versions(self) -> Mapping[str, str]: ...

    @property
    def kernels(self) -> Mapping[str, str]:
        """Those that it runs with, by kind, and who launches `copies`."""
        ...

    @property
    def load_pool_bytes(self) -> Mapping[str, int]:
        """High water of start-up by pool, before the arenas were made; only pools that were measured."""
        ...

    @property
    def communicator_bytes(self) -> int | None:
        """Of the device, taken for collectives; None where it cannot tell."""
        ...

    @property
    def next_step(self) -> int:
        """The first to run: above 0 where it goes on from a checkpoint."""
        ...

    @property
    def resumed(self) -> str | None:
        """That checkpoint."""
        ...

    @property
    def remarks(self) -> Sequence[str]:
        """On what was resumed."""
        ...

    def run_step(self, step: int) -> Mapping[str, Any]:
        """Run one optimizer step. Keys: those of protocol.StepDone without `step`, and optionally `records`.

        Raises StopAgreed where a rank was asked to stop before all of them had begun: then none runs it.
        """
        ...

    def request_stop(self) -> None:
        """Have no further step begin."""
        ...

    def save_checkpoint(self, step: int, *, wait: bool) -> None:
        """Begin to write the state before `step`; with `wait` it is done on return."""
        ...

    def take_saved(self) -> Sequence[Mapping[str, Any]]:
        """Checkpoints finished since the last call. Keys: those of protocol.Checkpointed without `digest`."""
        ...

    def evaluate(self, note: Callable[[int], None]) -> Mapping[str, Any]:
        """Evaluate held-out data, calling `note` with the number of each sequence.

        Keys: those of protocol.Evaluated without digest and step.
        """
        ...

    def export_model(self) -> Mapping[str, Any]:
        """Write the model into the folder of the options. Keys: those of protocol.Exported without digest, seconds."""
        ...

    def close(self) -> None: ...


SessionFactory = Callable[[bytes, bytes, Mapping[str, bytes], Mapping[str, Any]], Session]
"""Called as factory(header, prose, columns, options); see plan_frames.PlanFrames for the first three."""


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
    hello goes out before torch is loaded.
    """
    code, problem = EXIT_FAILED, None
    try:
        # Sent to whole groups of processes, by schedulers too: the controller hears them, and says what is to be done.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        lifeline = die_with_parent()
        channel = Channel(address, telemetry, Identity(run, rank, incarnation), lifeline)
        code = run_rank(channel, session_factory)
        channel.close()
    except BaseException as error:
        code, problem = EXIT_FAILED, error
    finally:
        exit_now(code, error=problem)


def run_rank(channel: Channel, session_factory: str | SessionFactory) -> int:
    """Serve until shutdown; the exit code."""
    try:
        _serve_messages(channel, session_factory)
    except BaseException as error:
        channel.send(failure(error, channel.status))
        if not is_explained(error):  # Else the controller prints all that helps.
            with suppress(Exception):  # Standard error may be closed.
                traceback.print_exception(error)
        # The controller answers an error by stopping this process; leaving before would race with its exit event.
        deadline = time.monotonic() + ERROR_SEEN_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            channel.receive(left)  # Steps sent ahead are not run any more.
        return EXIT_FAILED
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
            num_steps += _run_steps(channel, _loaded(session, body.digest), body, incoming.message.id)
        elif isinstance(body, protocol.SaveCheckpoint):
            _save(channel, _loaded(session, body.digest), body)
        elif isinstance(body, protocol.Stop):
            channel.send(protocol.Stopped(next_step=_next_step(session, num_steps)), incoming.message.id)
        elif isinstance(body, protocol.Evaluate):
            # Of a step before which all ranks agreed to stop nothing is evaluated.
            if body.step <= _next_step(session, num_steps):
                _evaluate(channel, _loaded(session, body.digest), body.step, incoming.message.id)
        elif isinstance(body, protocol.ExportModel):
            _export(channel, _loaded(session, body.digest), incoming.message.id)
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
    frames = check_plan(plan, incoming.frames)
    channel.send(protocol.PlanAccepted(digest=plan.digest), incoming.message.id)
    channel.enter("loading")
    create = load_factory(session_factory)
    session = create(frames.header, frames.prose, frames.columns, plan.options.model_dump(by_alias=False))
    if session.digest != plan.digest:
        raise PlanRefusedError(
            f"the session decoded digest {session.digest}, the plan says {plan.digest}",
            "install the npm and the Python package in the same version",
        )
    channel.enter("waiting")
    seconds = time.monotonic() - started
    channel.send(
        protocol.Ready(
            digest=plan.digest,
            device=session.device,
            versions=dict(session.versions),
            kernels=dict(session.kernels),
            seconds=seconds,
            pool_bytes=dict(session.load_pool_bytes),
            communicator_bytes=session.communicator_bytes,
            next_step=session.next_step,
            resumed=session.resumed,
            remarks=list(session.remarks),
        )
    )
    return session


def _run_steps(channel: Channel, session: Session, body: protocol.RunSteps, corr: str) -> int:
    """How many it ran: none, from the step on before which all ranks agreed to stop."""
    num_steps = 0
    for step in range(body.from_, body.to):
        if channel.is_stopping:
            session.request_stop()
        channel.enter("stepping", step)
        try:
            result = dict(session.run_step(step))
        except StopAgreed:
            break
        num_steps += 1
        records = cast("Telemetry", result.pop("records", ()))
        channel.send(protocol.StepDone(step=step, **result), corr)
        channel.send_telemetry(records)
        _tell_saved(channel, session)
    channel.enter("waiting")
    return num_steps


def _next_step(session: Session | None, num_steps: int) -> int:
    return 0 if session is None else session.next_step + num_steps


def _save(channel: Channel, session: Session, body: protocol.SaveCheckpoint) -> None:
    channel.enter("saving", body.step)
    session.save_checkpoint(body.step, wait=body.wait)
    _tell_saved(channel, session)
    channel.enter("waiting")


def _tell_saved(channel: Channel, session: Session) -> None:
    for saved in session.take_saved():
        channel.send(protocol.Checkpointed(digest=session.digest, **saved))


def _evaluate(channel: Channel, session: Session, step: int, corr: str) -> None:
    """Each sequence is a place of its own for whoever watches: an evaluation may take long."""
    channel.enter("evaluating", 0)
    result = session.evaluate(lambda sequence: channel.enter("evaluating", sequence))
    channel.send(protocol.Evaluated(digest=session.digest, step=step, **result), corr)
    channel.enter("waiting")


def _export(channel: Channel, session: Session, corr: str) -> None:
    started = time.monotonic()
    channel.enter("exporting")
    result = session.export_model()
    seconds = time.monotonic() - started
    channel.send(protocol.Exported(digest=session.digest, seconds=seconds, **result), corr)
    channel.enter("waiting")


def _loaded(session: Session | None, digest: str) -> Session:
    if session is None or session.digest != digest:
        held = session.digest if session else "none"
        raise PlanRefusedError(f"asked to work on plan {digest}, loaded is {held}", "send the plan first")
    return session


def load_factory(factory: str | SessionFactory) -> SessionFactory:
    """Resolve `module:attribute`; a callable is returned as it is."""
    if not isinstance(factory, str):
        return factory
    module_name, _, attribute = factory.partition(":")
    found: Any = getattr(importlib.import_module(module_name), attribute, None)
    if not callable(found):
        raise TypeError(f"session factory {factory} is not callable; give it as module:attribute")
    return cast("SessionFactory", found)
