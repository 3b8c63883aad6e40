"""A rank process ends with its controller and with its socket thread, whether or not anybody hears it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fpdt.wire import protocol
from fpdt.wire.exits import EXIT_COMMS_FAILED, EXIT_ORPHANED
from fpdt.wire.lifeline import CONTROLLER_PID_VARIABLE, Controller, Lifeline
from tests.conversation import Conversation


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
