"""One rank's file of a checkpoint: ranges of states by name, as safetensors has it, written and read in blocks.

safetensors' own writer wants whole tensors as bytes; this one never holds more than a block beside the live tensors,
and of those on a disk no more than a block.
A range is the entry `STATE@START:PARAMETER`, so that any safetensors reader can look into a file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from fpdt.checkpoint.fragments import Fragment
from fpdt.checkpoint.masters import CheckpointError
from fpdt.checkpoint.staging import Staging, State

DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "U8": torch.uint8}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
LENGTH_BYTES = 8
"""Of the number that says how long the header is, little-endian, as in every safetensors file."""
MAX_HEADER_BYTES = 100 << 20
"""What safetensors allows."""
SCALARS, EXTRAS = "scalars", "extra"
"""A key of the metadata, and the state under which tensors beside the parameters' are filed."""
SPACE = " "


@dataclass(frozen=True)
class ShardFacts:
    """What the manifest says of a file."""

    file: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Stored:
    """Elements [start, end) of a state of a parameter, in a file from byte `place` on."""

    start: int
    end: int
    dtype: torch.dtype
    path: Path
    place: int


@dataclass(frozen=True)
class ShardIndex:
    """Ranges by (state, parameter), what is kept once for a parameter, and tensors beside them by name."""

    ranges: Mapping[tuple[str, str], list[Stored]]
    scalars: Mapping[str, Mapping[str, float]]


def write_shard(
    path: Path, fragments: Sequence[Fragment], extras: Mapping[str, Tensor], staging: Staging
) -> ShardFacts:
    """Writes and syncs a file. Raises OSError; what is there of the file then is for the caller to remove."""
    tensors = [(_key(name, one.start, one.name), state) for one in fragments for name, state in one.states.items()]
    tensors += [(_key(EXTRAS, 0, name), tensor) for name, tensor in extras.items()]
    scalars = {one.name: dict(one.scalars) for one in fragments}
    header = _header(tensors, {SCALARS: json.dumps(scalars)})
    digest, size = hashlib.sha256(), 0
    with path.open("wb", buffering=0) as file:
        for block in _blocks(header, tensors, staging):
            write_all(file, block)
            digest.update(block)
            size += len(block)
        os.fsync(file.fileno())
    return ShardFacts(path.name, size, digest.hexdigest())


def read_index(paths: Sequence[Path]) -> ShardIndex:
    """What the files of a checkpoint have, from their headers. Raises CheckpointError for one that is not a shard."""
    ranges: dict[tuple[str, str], list[Stored]] = {}
    scalars: dict[str, Mapping[str, float]] = {}
    for path in paths:
        header, first = _read_header(path)
        scalars.update(json.loads(header.pop("__metadata__", {}).get(SCALARS, "{}")))
        for key, entry in header.items():
            state, start, name = _parse_key(key, path)
            begin, end = entry["data_offsets"]
            dtype = DTYPES[entry["dtype"]]
            stored = Stored(start, start + (end - begin) // dtype.itemsize, dtype, path, first + begin)
            ranges.setdefault((state, name), []).append(stored)
    for pieces in ranges.values():
        pieces.sort(key=lambda one: one.start)
    return ShardIndex(ranges, scalars)


def read_range(index: ShardIndex, state: str, name: str, start: int, target: State, staging: Staging) -> None:
    """Fills `target` with elements from `start` on. Raises CheckpointError where the files lack some."""
    done, end = start, start + target.numel()
    for stored in index.ranges.get((state, name), ()):
        first, last = max(done, stored.start), min(end, stored.end)
        if first >= last or first > done:
            continue
        if stored.dtype != target.dtype:
            raise CheckpointError(
                f"the checkpoint has {state} of {name} in {stored.dtype}, this run keeps it in {target.dtype}",
                "resume with a plan of the same precision of optimizer states",
            )
        place = stored.place + (first - stored.start) * stored.dtype.itemsize
        staging.fill(target.narrow(0, first - start, last - first), stored.path, place)
        done = last
    if done < end:
        raise CheckpointError(
            f"the checkpoint lacks {state} of {name} from element {done} on", "resume from another checkpoint"
        )


def read_extra(index: ShardIndex, name: str, staging: Staging) -> Tensor | None:
    """A tensor that was written beside the states of the parameters; 1-D bytes."""
    stored = next(iter(index.ranges.get((EXTRAS, name), ())), None)
    if stored is None:
        return None
    target = torch.empty(stored.end - stored.start, dtype=stored.dtype)
    staging.fill(target, stored.path, stored.place)
    return target


def file_sha256(path: Path, block_bytes: int = 1 << 24) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(block_bytes):
            digest.update(block)
    return digest.hexdigest()


def _key(state: str, start: int, name: str) -> str:
    return f"{state}@{start}:{name}"


def _parse_key(key: str, path: Path) -> tuple[str, int, str]:
    place, _, name = key.partition(":")
    state, _, start = place.partition("@")
    if not start.isdigit() or not name:
        raise CheckpointError(f"{path} has an entry '{key}', which no checkpoint of this version has", _OTHER)
    return state, int(start), name


def _header(tensors: Sequence[tuple[str, State]], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": metadata}
    place = 0
    for key, tensor in tensors:
        end = place + tensor.numel() * tensor.dtype.itemsize
        entries[key] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": [tensor.numel()], "data_offsets": [place, end]}
        place = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += SPACE.encode() * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _blocks(header: bytes, tensors: Sequence[tuple[str, State]], staging: Staging) -> Iterator[memoryview]:
    yield memoryview(header)
    for _, tensor in tensors:
        yield from staging.blocks(tensor)


def write_all(file: Any, block: memoryview) -> None:
    """A raw file may take less than it is given."""
    while len(block) > 0:
        block = block[file.write(block) :]


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and where the first tensor begins."""
    try:
        with path.open("rb") as file:
            return _parse_header(file)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a shard of a checkpoint: {error}", _OTHER) from error


def _parse_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header would have {length} bytes")
    header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    return header, LENGTH_BYTES + length


_OTHER = "resume from another checkpoint, or with the fpdt that wrote this one"
