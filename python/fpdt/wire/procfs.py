"""What Linux tells of a process: its state and the processor time it has used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ENDED_STATES = "ZX"
"""Of a zombie, which only waits for its parent to read its exit code, and of one that is just being removed."""
PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessStat:
    """`state` is the main thread's, `cpu_ticks` user and system time of all threads; `start_ticks` tells two users of
    one process id apart."""

    state: str
    cpu_ticks: int
    start_ticks: int

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED_STATES


def read_stat(pid: int, thread: int | None = None) -> ProcessStat | None:
    """Of a process, or of one of its threads; None when it is gone. See proc_pid_stat(5)."""
    folder = PROC / str(pid) if thread is None else PROC / str(pid) / "task" / str(thread)
    try:
        text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name is in parentheses and may itself hold spaces and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    return ProcessStat(fields[0], int(fields[11]) + int(fields[12]), int(fields[19]))


def thread_states(pid: int) -> str:
    """One letter per thread: R runs or waits for a processor, D waits for a disk, S sleeps."""
    try:
        threads = [int(folder.name) for folder in (PROC / str(pid) / "task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return ""
    stats = (read_stat(pid, thread) for thread in threads)
    return "".join(stat.state for stat in stats if stat is not None)
