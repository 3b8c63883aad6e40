"""The checkpoints of one rank's session: where it starts, what it saves, and when the states may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fpdt.checkpoint.agreement import Agreement
from fpdt.checkpoint.counters import random_states, restore_counters, restore_random_states, save_counters
from fpdt.checkpoint.find import Found, Request, find_checkpoint
from fpdt.checkpoint.folder import Checkpoint, clear_left_overs, lock_folder
from fpdt.checkpoint.fragments import held_fragments, owned_fragments, set_scalars
from fpdt.checkpoint.identity import check_identity, model_identity
from fpdt.checkpoint.masters import CheckpointError, publish_masters
from fpdt.checkpoint.saver import Saved, Saver, Work
from fpdt.checkpoint.shard import EXTRAS, ShardIndex, read_extra, read_index, read_range
from fpdt.checkpoint.staging import Staging
from fpdt.plan import Plan
from fpdt.run.planned_batches import ResumableSource


@dataclass(frozen=True)
class Trained:
    """What a checkpoint is of. `engine` is DeepSpeed's, `model` what it trains."""

    plan: Plan
    engine: Any
    model: nn.Module
    data: ResumableSource
    device: torch.device
    versions: Mapping[str, str]


class Checkpoints:
    """Made by all ranks, which make the same calls. Raises CheckpointError for a folder that cannot be used.

    `options`: `checkpoint` and `resume` of protocol.RunOptions.
    """

    def __init__(self, options: Mapping[str, Any], rank: int, world_size: int) -> None:
        self._options: Mapping[str, Any] = options.get("checkpoint") or {}
        self._resume: Mapping[str, Any] = options.get("resume") or {"newest": False, "path": None}
        self._rank, self._world_size = rank, world_size
        self._is_used = bool(self._options) or self._resume["path"] is not None
        self._folder = Path(self._options["folder"]).absolute() if self._options else None
        self._lock = lock_folder(self._folder) if self._folder is not None and rank == 0 else None
        self._trained: Trained | None = None
        self._saver: Saver | None = None
        self._identity: dict[str, Any] = {}
        self._newest_step: int | None = None
        self._unsaid: list[Saved] = []
        self.next_step = 0
        """The first that this session runs."""
        self.resumed: str | None = None
        """The checkpoint that it goes on from."""
        self.remarks: list[str] = []

    def resume(self, trained: Trained) -> None:
        """Loads the checkpoint that the options ask for, if there is one. Raises CheckpointError for one that is not
        sound or not of this model, and DataError where the data has changed."""
        self._trained = trained
        if not self._is_used:
            return
        agreement = Agreement(self._world_size)
        staging = Staging(trained.device)
        self._identity = model_identity(trained.plan, trained.model)
        path = self._resume["path"]
        request = Request(self._folder, self._resume["newest"], None if path is None else Path(path).absolute())
        found = find_checkpoint(request, self._rank, self._world_size, agreement)
        if found.checkpoint is not None:
            self._load(found.checkpoint, trained, staging)
        self._say(found)
        if self._folder is not None:
            if self._rank == 0:
                clear_left_overs(self._folder)
            self._saver = Saver(self._folder, int(self._options["keep"]), self._rank, agreement, staging)

    def save(self, next_step: int, *, wait: bool) -> None:
        """Begins a checkpoint of the state before `next_step`; with `wait` it is there, or has failed, on return."""
        saver, trained = self._saver, self._trained
        if saver is None or trained is None:
            raise CheckpointError("there is no folder to save a checkpoint into", "start the run with --checkpoint")
        if self._newest_step != next_step:
            self._take(wait=True)
            saver.start(self._work(next_step, trained))
            self._newest_step = next_step
        if wait:
            self._take(wait=True)

    def save_when_due(self, next_step: int, num_steps: int) -> None:
        """Where no controller says when: every so many steps, and when all are done."""
        if self._saver is None:
            return
        every = self._options["every"]
        if next_step == num_steps:
            self.save(next_step, wait=True)
        elif every is not None and next_step % every == 0:
            self.save(next_step, wait=False)

    def release_states(self) -> None:
        """To be called before every optimizer step: returns when nothing reads the states any more."""
        if self._saver is not None:
            self._saver.release_states()

    def take_saved(self) -> list[Saved]:
        """Checkpoints that were finished since the last call. Raises CheckpointError for one that could not be written,
        where the options ask the run to stop then."""
        self._take(wait=False)
        said, self._unsaid = self._unsaid, []
        failed = next((one.problem for one in said if one.problem is not None), None)
        if failed is not None and self._options["on_save_failure"] == "stop":
            raise CheckpointError(
                f"the checkpoint could not be written: {failed}",
                "free space there, give another folder with --checkpoint, or take --on-save-failure continue",
            )
        return said

    def close(self) -> None:
        self._take(wait=True)
        if self._lock is not None:
            self._lock.close()

    def _take(self, *, wait: bool) -> None:
        saved = None if self._saver is None else self._saver.take(wait=wait)
        if saved is not None:
            self._unsaid.append(saved)

    def _work(self, next_step: int, trained: Trained) -> Work:
        engine, plan = trained.engine, trained.plan
        state = {
            "step": next_step,
            "plan": plan.digest,
            "worldSize": self._world_size,
            "zeroStage": int(plan.run["zeroStage"]),
            "model": self._identity,
            "data": trained.data.position(next_step),
            "counters": save_counters(engine),
            "versions": dict(trained.versions),
        }
        fragments = list(owned_fragments(engine, trained.model, self._rank, self._world_size))
        random = {f"{self._rank}/{name}": value for name, value in random_states(trained.device).items()}
        return Work(next_step, fragments, random, state)

    def _load(self, checkpoint: Checkpoint, trained: Trained, staging: Staging) -> None:
        state = checkpoint.state()
        check_identity(state["model"], self._identity, str(checkpoint.folder))
        trained.data.seek(state["data"], checkpoint.step)
        index = read_index(checkpoint.shards)
        try:
            _load_states(index, trained, staging)
        except OSError as error:
            raise CheckpointError(
                f"the states of {checkpoint.folder} cannot be taken up: {error.strerror}",
                "free space where offload_optimizer keeps them, or resume from another checkpoint",
            ) from error
        restore_counters(trained.engine, state["counters"])
        if state["worldSize"] == self._world_size:
            places = {name: f"{self._rank}/{name}" for name in random_states(trained.device)}
            found = {name: read_extra(index, place, staging) for name, place in places.items()}
            restore_random_states({name: value for name, value in found.items() if value is not None}, trained.device)
        self.next_step = checkpoint.step
        if checkpoint.folder.parent == self._folder:
            self._newest_step = checkpoint.step

    def _say(self, found: Found) -> None:
        self.remarks = list(found.remarks)
        if found.checkpoint is not None:
            self.resumed = str(found.checkpoint.folder)
            self.remarks.append(f"goes on at step {found.checkpoint.step} from {found.checkpoint.folder}")
        elif self._resume["newest"]:
            self.remarks.append(f"no checkpoint in {self._folder} yet: a fresh start")


def _load_states(index: ShardIndex, trained: Trained, staging: Staging) -> None:
    """And the model's weights. Raises CheckpointError for what the shards lack, OSError where files fail."""
    engine, model = trained.engine, trained.model
    names = sorted({name for name, _ in index.ranges if name != EXTRAS})
    for fragment in held_fragments(engine, model, names):
        for name, state in fragment.states.items():
            read_range(index, name, fragment.name, fragment.start, state, staging)
    set_scalars(engine, model, index.scalars)
    publish_masters(engine.optimizer)
