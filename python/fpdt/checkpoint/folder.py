"""The folder of a run's checkpoints: each whole or not there, the last few kept, one run at a time.

    step-00000010/manifest.json               what belongs to it, with a digest of each file and of itself; written last
    step-00000010/state.json                  what is no tensor
    step-00000010/rank-00000.safetensors      one of each rank
    step-00000020.writing-ID/                 being written; never read
    lock                                      held by rank 0 of the run that writes here

A folder becomes a checkpoint by one rename, after its files are on the disk, and stops being one by another.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fpdt.checkpoint.masters import CheckpointError
from fpdt.checkpoint.shard import ShardFacts, file_sha256

FORMAT = 1
MANIFEST, STATE, LOCK = "manifest.json", "state.json", "lock"
LEFT_OVERS = ("*.writing-*", "*.removing-*")
_STEP_FOLDER = re.compile(r"^step-(\d{8,})$")
_ANOTHER = "resume from another checkpoint, or take --resume auto, which skips it"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose manifest is whole; of its files only names and sizes are known to be right."""

    folder: Path
    step: int
    files: tuple[ShardFacts, ...]

    @property
    def shards(self) -> list[Path]:
        return [self.folder / one.file for one in self.files if one.file != STATE]

    @property
    def num_bytes(self) -> int:
        return sum(one.num_bytes for one in self.files)

    def state(self) -> dict[str, Any]:
        """What is no tensor, as it was saved."""
        found: dict[str, Any] = json.loads((self.folder / STATE).read_text())
        return found

    def check_files(self, numbers: Sequence[int]) -> None:
        """Reads the files of these numbers whole. Raises CheckpointError for one that is not what was written."""
        for number in numbers:
            facts = self.files[number]
            path = self.folder / facts.file
            try:
                found = file_sha256(path)
            except OSError as error:
                raise CheckpointError(f"cannot read {path}: {error.strerror}", _ANOTHER) from error
            if found != facts.sha256:
                raise CheckpointError(
                    f"{path} is damaged: its SHA-256 is {found[:16]}..., the manifest has {facts.sha256[:16]}...",
                    _ANOTHER,
                )


def step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def writing_folder(folder: Path, step: int, run: str) -> Path:
    """Where the files of a checkpoint are until it is whole; `run` tells it from what another run has left."""
    return folder / f"{step_folder(folder, step).name}.writing-{run}"


def shard_name(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def steps_in(folder: Path) -> list[int]:
    """Of all that is named like a checkpoint, newest first."""
    if not folder.is_dir():
        return []
    found = (_STEP_FOLDER.match(path.name) for path in folder.iterdir() if path.is_dir())
    return sorted((int(match.group(1)) for match in found if match), reverse=True)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Reads the manifest. Raises CheckpointError where it was changed, or a file is missing or cut short."""
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        what = "there is no checkpoint" if not folder.is_dir() else "there is no whole checkpoint"
        raise CheckpointError(f"{what} in {folder}: {error.strerror}: {MANIFEST}", _ANOTHER) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON, or was cut short", _ANOTHER) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else document
        raise CheckpointError(
            f"{path} has format {found}, this fpdt reads {FORMAT}", "resume with the fpdt that wrote it"
        )
    if document.pop("sha256", None) != _digest(document):
        raise CheckpointError(f"{path} was changed", _ANOTHER)
    files = tuple(ShardFacts(one["file"], one["num_bytes"], one["sha256"]) for one in document["files"])
    for facts in files:
        _check_size(folder / facts.file, facts.num_bytes)
    return Checkpoint(folder, int(document["step"]), files)


def is_whole(folder: Path) -> bool:
    """Whether its manifest and all files that it names are there, in their sizes."""
    try:
        open_checkpoint(folder)
    except CheckpointError:
        return False
    return True


def commit(
    writing: Path, target: Path, step: int, state: Mapping[str, Any], shards: Sequence[ShardFacts]
) -> Checkpoint:
    """Makes what is in `writing` the checkpoint `target`, one that was not sound giving way. Raises OSError."""
    text = json.dumps(state, indent=1, allow_nan=False).encode()
    _write_synced(writing / STATE, text)
    files = (ShardFacts(STATE, len(text), hashlib.sha256(text).hexdigest()), *shards)
    document = {"format": FORMAT, "step": step, "files": [asdict(one) for one in files]}
    _write_synced(writing / MANIFEST, json.dumps({**document, "sha256": _digest(document)}, indent=1).encode())
    sync_folder(writing)
    if target.exists():
        remove(target)
    writing.rename(target)
    sync_folder(target.parent)
    return Checkpoint(target, step, files)


def prune(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep` that are whole, and those older that are not."""
    num_kept = 0
    for step in steps_in(folder):
        if num_kept >= keep:
            remove(step_folder(folder, step))
        else:
            num_kept += is_whole(step_folder(folder, step))


def remove(folder: Path) -> None:
    """By a rename first: a process that dies in between leaves nothing that looks like a checkpoint."""
    going = folder.with_name(f"{folder.name}.removing-{os.getpid()}")
    folder.rename(going)
    shutil.rmtree(going, ignore_errors=True)


def clear_left_overs(folder: Path) -> None:
    """Removes what runs that were killed have left. To be called by who holds the lock."""
    for pattern in LEFT_OVERS:
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def lock_folder(folder: Path) -> BinaryIO:
    """Makes the folder and holds it until the file is closed, or the process ends.

    Raises CheckpointError where it cannot be written, or another run holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("ab")
    except OSError as error:
        raise CheckpointError(
            f"cannot write checkpoints into {folder}: {error.strerror}",
            "give --checkpoint a folder that can be written",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise CheckpointError(
            f"another run writes checkpoints into {folder}", "stop it, or give another folder with --checkpoint"
        ) from error
    return lock


def sync_folder(folder: Path) -> None:
    """So that the names in it are on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_size(path: Path, num_bytes: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{path} is missing from the checkpoint", _ANOTHER) from error
    if found != num_bytes:
        raise CheckpointError(f"{path} has {found} bytes, {num_bytes} were written", _ANOTHER)


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _write_synced(path: Path, text: bytes) -> None:
    with path.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
