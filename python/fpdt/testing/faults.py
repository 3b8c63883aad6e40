"""Faults on demand, for tests only, from the environment variable FPDT_FAULT.

    leak:BYTES            keeps that many bytes at every forward of a decoder layer
    sleep:KIND:SECONDS    sleeps in the handler of an op kind
    kill:RANK:STEP        SIGKILLs the rank when it starts the step
    raise:RANK:STEP       raises InjectedFaultError there instead

A session applies them once, when it is made.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from fpdt.run.context import Handler, OpContext

VARIABLE = "FPDT_FAULT"


class InjectedFaultError(RuntimeError):
    """What a test asked for with `raise:RANK:STEP`."""


@dataclass(frozen=True)
class Leak:
    num_bytes: int


@dataclass(frozen=True)
class Sleep:
    kind: str
    seconds: float


@dataclass(frozen=True)
class Stop:
    """Ends or fails the rank at the start of the step."""

    kill: bool
    rank: int
    step: int

    def before_step(self, rank: int, step: int) -> None:
        if (rank, step) != (self.rank, self.step):
            return
        if self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        raise InjectedFaultError(f"{VARIABLE}: rank {rank} was asked to fail in step {step}")


Fault = Leak | Sleep | Stop


def parse_fault(text: str) -> Fault | None:
    """The fault that the variable's value asks for; None for an empty one. Raises ValueError naming the four forms."""
    if not text:
        return None
    try:
        match text.split(":"):
            case ["leak", num_bytes]:
                return Leak(int(num_bytes))
            case ["sleep", kind, seconds]:
                return Sleep(kind, float(seconds))
            case [("kill" | "raise") as what, rank, step]:
                return Stop(what == "kill", int(rank), int(step))
    except ValueError as error:
        raise ValueError(_usage(text)) from error
    raise ValueError(_usage(text))


def fault_from_environment() -> Fault | None:
    return parse_fault(os.environ.get(VARIABLE, ""))


def _usage(text: str) -> str:
    return f"{VARIABLE}={text}: expected leak:BYTES, sleep:KIND:SECONDS, kill:RANK:STEP or raise:RANK:STEP"


def slow_handlers(handlers: Mapping[str, Handler], fault: Fault | None) -> dict[str, Handler]:
    """The handlers, of which that of a `sleep` fault sleeps first. Raises ValueError for a kind without a handler."""
    table = dict(handlers)
    if isinstance(fault, Sleep):
        if fault.kind not in table:
            raise ValueError(f"{VARIABLE}: there is no handler of kind {fault.kind}; kinds: {', '.join(sorted(table))}")
        table[fault.kind] = _sleep_before(table[fault.kind], fault.seconds)
    return table


def _sleep_before(handler: Handler, seconds: float) -> Handler:
    def slow(context: OpContext) -> None:
        time.sleep(seconds)
        handler(context)

    return slow


def leak_per_call(fault: Fault | None) -> Callable[[], None]:
    """What to call at every forward of a decoder layer: keeps bytes for a `leak` fault, does nothing otherwise."""
    kept: list[Tensor] = []

    def leak() -> None:
        if isinstance(fault, Leak):
            import torch

            kept.append(torch.ones(fault.num_bytes, dtype=torch.uint8))

    return leak
