"""A rank never outlives its controller.

The kernel's death signal (Linux) comes first: milliseconds after the parent is gone, whatever the rank does. It has
gaps: a parent that died before the signal was asked for, and a controller that is not the parent itself. So the rank
looks for its controller right after asking, and its socket thread keeps looking.

The signal is tied to the thread that started the rank: a thread that ends takes the ranks it started with it. A child
of the rank does not inherit it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from fpdt.wire.exits import EXIT_ORPHANED, exit_now
from fpdt.wire.procfs import read_stat

PR_SET_PDEATHSIG = 1
CONTROLLER_PID_VARIABLE = "FPDT_CONTROLLER_PID"
ORPHANED = "fpdt: the controller is gone"


def die_with_parent(parent: int | None = None) -> Lifeline:
    """Have the kernel SIGKILL this process when its parent is gone (Linux). Does not return where that has happened.

    `parent` is for a fork, which knew it before; a rank knows its controller from the environment. To be called before
    anything that takes time, such as heavy imports.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    lifeline = Lifeline.of_process() if parent is None else Lifeline(parent, None)
    if lifeline.is_cut():
        exit_now(EXIT_ORPHANED, ORPHANED)
    return lifeline


@dataclass(frozen=True)
class Controller:
    """A process that is not the parent. With its start time, since its id may be given to another process."""

    pid: int
    start_ticks: int | None

    @classmethod
    def of_pid(cls, pid: int) -> Controller:
        stat = read_stat(pid)
        return cls(pid, None if stat is None else stat.start_ticks)

    def is_alive(self) -> bool:
        if sys.platform != "linux":
            return _has_process(self.pid)
        stat = read_stat(self.pid)
        return stat is not None and not stat.has_ended and stat.start_ticks == self.start_ticks


@dataclass(frozen=True)
class Lifeline:
    """`controller` is None where the parent is the controller, or where there is none."""

    parent: int
    controller: Controller | None

    @classmethod
    def of_process(cls, environment: Mapping[str, str] = os.environ) -> Lifeline:
        """Of this process as it is now. A parent other than the controller is a wrapper, or who inherited an orphan."""
        parent, controller = os.getppid(), int(environment.get(CONTROLLER_PID_VARIABLE, "0"))
        return cls(parent, Controller.of_pid(controller) if controller not in (0, parent) else None)

    def is_cut(self) -> bool:
        return os.getppid() != self.parent or (self.controller is not None and not self.controller.is_alive())


def _has_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
