"""Writes checkpoints while training goes on: a thread reads the live states, which only an optimizer step changes."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fpdt.checkpoint.agreement import Agreement
from fpdt.checkpoint.folder import commit, prune, shard_name, step_folder, writing_folder
from fpdt.checkpoint.fragments import Fragment
from fpdt.checkpoint.shard import ShardFacts, write_shard
from fpdt.checkpoint.staging import Staging


@dataclass(frozen=True)
class Saved:
    """What became of a checkpoint. `seconds` from its start to the rename, `blocked_seconds` those of them in which the
    rank did nothing else. `problem` says why there is none; all ranks have the same."""

    step: int
    folder: Path
    num_bytes: int
    seconds: float
    blocked_seconds: float
    problem: str | None

    def to_message(self) -> dict[str, Any]:
        """The keys of protocol.Checkpointed without `digest`."""
        return {
            "step": self.step,
            "folder": str(self.folder),
            "bytes": self.num_bytes,
            "seconds": self.seconds,
            "blocked_seconds": self.blocked_seconds,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Work:
    """What a thread writes."""

    step: int
    fragments: Sequence[Fragment]
    extras: Mapping[str, Tensor]
    state: Mapping[str, Any]


class Saver:
    """One checkpoint at a time. Made by all ranks, which ask for the same in the same order."""

    def __init__(self, folder: Path, keep: int, rank: int, agreement: Agreement, staging: Staging) -> None:
        self._folder, self._keep, self._rank = folder, keep, rank
        self._agreement, self._staging = agreement, staging
        self._run = agreement.gather(secrets.token_hex(4))[0]
        self._thread: threading.Thread | None = None
        self._is_read = threading.Event()
        self._is_read.set()
        self._started = self._blocked_seconds = 0.0
        self._outcome: Saved | BaseException | None = None

    def start(self, work: Work) -> None:
        """Begins to write. No earlier checkpoint may be unfinished: see take."""
        if self._thread is not None:
            raise RuntimeError("a checkpoint was begun before the one before it was taken")
        self._started, self._blocked_seconds = time.monotonic(), 0.0
        self._staging.wait_for_device()
        self._is_read.clear()
        self._thread = threading.Thread(target=self._run_thread, args=(work,), name="fpdt-checkpoint", daemon=True)
        self._thread.start()

    def release_states(self) -> None:
        """Returns when the states may change; to be called before every optimizer step."""
        if not self._is_read.is_set():
            begun = time.monotonic()
            self._is_read.wait()
            self._blocked_seconds += time.monotonic() - begun

    def take(self, *, wait: bool) -> Saved | None:
        """What became of the checkpoint that was begun last, once; None where there is none, or it is not done."""
        if self._thread is None or (not wait and self._thread.is_alive()):
            return None
        begun = time.monotonic()
        self._thread.join()
        self._blocked_seconds += time.monotonic() - begun
        self._thread, outcome = None, self._outcome
        if not isinstance(outcome, Saved):
            raise RuntimeError("the thread that writes checkpoints failed") from outcome
        return Saved(**{**vars(outcome), "blocked_seconds": self._blocked_seconds})

    def _run_thread(self, work: Work) -> None:
        try:
            self._outcome = self._write(work)
        except BaseException as error:
            self._outcome = error
        finally:
            self._is_read.set()

    def _write(self, work: Work) -> Saved:
        writing = writing_folder(self._folder, work.step, self._run)
        target = step_folder(self._folder, work.step)
        answers = [json.loads(one) for one in self._agreement.gather(json.dumps(self._write_shard(writing, work)))]
        problem = next((one["problem"] for one in answers if one["problem"] is not None), None)
        facts = [ShardFacts(**one["shard"]) for one in answers if one["shard"] is not None]
        if self._rank == 0:
            problem = problem or self._commit(writing, target, work, facts)
            shutil.rmtree(writing, ignore_errors=True)
        problem = json.loads(self._agreement.gather(json.dumps(problem))[0])
        num_bytes = sum(one.num_bytes for one in facts)
        return Saved(work.step, target, num_bytes, time.monotonic() - self._started, 0.0, problem)

    def _write_shard(self, writing: Path, work: Work) -> dict[str, Any]:
        """This rank's answer; what is there of a file that could not be written is removed, and makes room."""
        path = writing / shard_name(self._rank)
        try:
            writing.mkdir(parents=True, exist_ok=True)
            return {"problem": None, "shard": asdict(write_shard(path, work.fragments, work.extras, self._staging))}
        except OSError as error:
            with suppress(OSError):
                path.unlink()
            return {"problem": f"rank {self._rank} cannot write {path}: {error.strerror}", "shard": None}
        finally:
            self._is_read.set()

    def _commit(self, writing: Path, target: Path, work: Work, facts: Sequence[ShardFacts]) -> str | None:
        """Makes it a checkpoint, and has the oldest go then."""
        try:
            commit(writing, target, work.step, work.state, facts)
            prune(self._folder, self._keep)
        except OSError as error:
            return f"cannot write {target}: {error.strerror}"
        return None
