"""A rank must not outlive its controller: kernel death signal first, polling the parent where there is none."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass, field

PR_SET_PDEATHSIG = 1
CONTROLLER_PID_VARIABLE = "FPDT_CONTROLLER_PID"


def die_with_parent() -> None:
    """Ask the kernel to SIGKILL this process when its parent is gone (Linux); no-op elsewhere."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


@dataclass(frozen=True)
class Lifeline:
    """Tells whether the controller is gone, also where it died before `die_with_parent` or is not the direct parent."""

    parent: int = field(default_factory=os.getppid)
    controller: int = field(default_factory=lambda: int(os.environ.get(CONTROLLER_PID_VARIABLE, "0")))

    def is_cut(self) -> bool:
        if os.getppid() != self.parent:
            return True
        return self.controller not in (0, self.parent) and not is_alive(self.controller)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
