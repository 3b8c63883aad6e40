"""Forked processes that answer once with JSON, and what becomes of them: an answer, a failure, a death or a hang."""

from __future__ import annotations

import faulthandler
import json
import os
import re
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import IO, Any, NoReturn

from fpdt.testing.progress import TICK_SECONDS, IdleWatch
from fpdt.wire.lifeline import die_with_parent

Result = dict[str, Any]
PROGRESS = b"\n"
"""JSON may have any number of it in front."""
STACK_SIGNAL = signal.SIGUSR1
MAX_STACK_TICKS = 20
_OUR_FRAME = re.compile(r'File ".*/fpdt/(.+)", line (\d+) in (\w+)')
_progress_pipe: int | None = None


class JobError(Exception):
    """A job's process failed; carries its traceback."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


@dataclass
class Child:
    """`reader`: the answer comes here; `stacks`: on a signal, the Python stacks of its threads do."""

    pid: int
    reader: int
    stacks: IO[bytes]
    text: bytes = b""
    status: int | None = None

    def read(self) -> bool:
        """Takes what has come; False when there will be nothing more."""
        block = os.read(self.reader, 1 << 16)
        self.text += block
        return bool(block)

    def stack_text(self) -> str:
        return os.pread(self.stacks.fileno(), 1 << 20, 0).decode(errors="replace")

    def end(self) -> None:
        """Kills it, if it still runs, with what it started."""
        if self.status is not None:
            return
        for kill, target in ((os.killpg, self.pid), (os.kill, self.pid)):
            try:
                kill(target, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.wait()

    def wait(self) -> int:
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def close(self) -> None:
        self.end()
        os.close(self.reader)
        self.stacks.close()


def run_children(works: Iterable[Callable[[], Result]], idle_seconds: float) -> list[Result]:
    """What each of `works` answers, run in a process of its own; none is left.

    Raises JobError with the first failure, or when none of them has moved for `idle_seconds`, with the place where
    each of them is.
    """
    with ExitStack() as exit_stack:
        children = [exit_stack.enter_context(closing(fork(work))) for work in works]
        return _collect(children, idle_seconds)


def fork(work: Callable[[], Result]) -> Child:
    """Run `work` in a child, which never returns from here."""
    reader, writer = os.pipe()
    stacks = tempfile.TemporaryFile()  # noqa: SIM115 - closed by Child.close
    sys.stdout.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _run_child(work, parent, writer, stacks)
    os.close(writer)
    return Child(pid, reader, stacks)


def note_progress() -> None:
    """To be called by a child where it has come further; also shows that it does not hang."""
    if _progress_pipe is not None:
        os.write(_progress_pipe, PROGRESS)


def _run_child(work: Callable[[], Result], parent: int, writer: int, stacks: IO[bytes]) -> NoReturn:
    global _progress_pipe
    try:
        os.setpgid(0, 0)
        os.dup2(2, 1)
        die_with_parent(parent)
        faulthandler.register(STACK_SIGNAL, file=stacks, all_threads=True)
        _progress_pipe = writer
        answer = work()
    except BaseException as error:
        answer = {"failed": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    try:
        with os.fdopen(writer, "w") as pipe:
            json.dump(answer, pipe)
    finally:
        os._exit(0)


def _collect(children: Sequence[Child], idle_seconds: float) -> list[Result]:
    waiting = {child.reader: rank for rank, child in enumerate(children)}
    watch = IdleWatch((child.pid for child in children), idle_seconds)
    while waiting:
        ready, _, _ = select.select(list(waiting), [], [], TICK_SECONDS)
        for reader in ready:
            watch.reset()
            rank = waiting[reader]
            if not children[rank].read():
                del waiting[reader]
                _check_answer(rank, children[rank])
        if not ready:
            watch.tick()
        if watch.is_idle:
            raise _hang({rank: children[rank] for rank in waiting.values()}, idle_seconds)
    return [json.loads(child.text) for child in children]


def _check_answer(rank: int, child: Child) -> None:
    if not child.text.strip():
        child.end()
        raise JobError(f"rank {rank} died without an answer, status {child.wait()}")
    answer = json.loads(child.text)
    if "failed" in answer:
        raise JobError(answer["failed"], answer["traceback"])


def _hang(stuck: Mapping[int, Child], seconds: float) -> JobError:
    for child in stuck.values():
        os.kill(child.pid, STACK_SIGNAL)
    for _ in range(MAX_STACK_TICKS):
        answered = all(child.stack_text() for child in stuck.values())
        time.sleep(TICK_SECONDS)
        if answered:
            break
    stacks = {rank: child.stack_text() for rank, child in stuck.items()}
    places = "; ".join(f"rank {rank} in {place_of(text)}" for rank, text in stacks.items())
    trace = "\n".join(f"rank {rank}:\n{text}" for rank, text in stacks.items())
    return JobError(f"the job hangs: no rank has moved for {seconds:.0f} s; {places}", trace)


def place_of(stacks: str) -> str:
    """Where the main thread is, of what faulthandler wrote: the handler of its op, if any, and the innermost of our
    functions."""
    main = stacks.rstrip().rsplit("\n\n", 1)[-1]
    frames = [match.groups() for match in _OUR_FRAME.finditer(main)]
    if not frames:
        return "no function of ours" if stacks else "an unknown place: it does not answer"
    handler = next((frame for frame in frames if frame[0].startswith("ops/")), frames[0])
    return " at ".join(f"{name} ({file}:{line})" for file, line, name in dict.fromkeys((handler, frames[0])))
