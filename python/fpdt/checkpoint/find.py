"""Which checkpoint a run goes on from: agreed on by all ranks, every file of it read and compared with its digest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fpdt.checkpoint.agreement import Agreement
from fpdt.checkpoint.folder import Checkpoint, is_whole, open_checkpoint, step_folder, steps_in
from fpdt.checkpoint.masters import CheckpointError


@dataclass(frozen=True)
class Request:
    """`newest`: the newest sound checkpoint of `folder`; where it has none, or without it, `path`, if any."""

    folder: Path | None
    newest: bool
    path: Path | None


@dataclass(frozen=True)
class Found:
    """`remarks`: of damaged checkpoints that were passed over."""

    checkpoint: Checkpoint | None
    remarks: tuple[str, ...]


def find_checkpoint(request: Request, rank: int, world_size: int, agreement: Agreement) -> Found:
    """A collective. Raises CheckpointError for a `path` that is not sound, a folder whose checkpoints are all damaged,
    and one whose checkpoints would be mixed with another run's."""
    found = (
        _newest(request.folder, rank, world_size, agreement) if request.newest and request.folder else Found(None, ())
    )
    if found.checkpoint is None and request.path is not None:
        checkpoint, problem = _check(request.path, rank, world_size, agreement)
        if checkpoint is None:
            raise CheckpointError(problem, "give --resume another checkpoint")
        found = Found(checkpoint, found.remarks)
        if request.folder is not None:
            _refuse_later(request.folder, checkpoint.step, f"step {checkpoint.step}", agreement)
    elif found.checkpoint is None and request.folder is not None:
        _refuse_later(request.folder, -1, "a fresh start", agreement)
    return found


def _newest(folder: Path, rank: int, world_size: int, agreement: Agreement) -> Found:
    steps = json.loads(agreement.gather(json.dumps(steps_in(folder)))[0])
    remarks: list[str] = []
    for step in steps:
        checkpoint, problem = _check(step_folder(folder, step), rank, world_size, agreement)
        if checkpoint is not None:
            return Found(checkpoint, tuple(remarks))
        remarks.append(f"passed over a checkpoint: {problem}")
    if remarks:
        raise CheckpointError(
            f"none of the {len(steps)} checkpoints in {folder} is sound: {problem}",
            "start anew with another folder, or bring the files back",
        )
    return Found(None, ())


def _check(folder: Path, rank: int, world_size: int, agreement: Agreement) -> tuple[Checkpoint | None, str]:
    """The checkpoint, or what is wrong with it. Each file is read by one rank."""
    checkpoint, problem = None, ""
    try:
        checkpoint = open_checkpoint(folder)
        checkpoint.check_files(range(rank, len(checkpoint.files), world_size))
    except CheckpointError as error:
        problem = str(error)
    problem = next((one for one in agreement.gather(problem) if one), "")
    return (None, problem) if problem else (checkpoint, "")


def _refuse_later(folder: Path, step: int, where: str, agreement: Agreement) -> None:
    """A run that starts before a checkpoint which is there would make it look like its own."""
    later = [one for one in steps_in(folder) if one > step and is_whole(step_folder(folder, one))]
    newest = json.loads(agreement.gather(json.dumps(later[:1]))[0])
    if newest:
        raise CheckpointError(
            f"{folder} has a checkpoint of step {newest[0]}, later than {where}",
            "take --resume auto to go on from it, or give another folder with --checkpoint",
        )
