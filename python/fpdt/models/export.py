"""Writes a Hugging Face folder that `from_pretrained` loads: config.json and safetensors, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from fpdt.models.weights import INDEX, SINGLE, WeightsError

MAX_SHARD_BYTES = 5 * 10**9
"""As transformers' save_pretrained cuts."""


def write_model(
    model: nn.Module, folder: str | Path, weights: Iterator[tuple[str, Tensor]], is_writer: bool, num_bytes: int
) -> None:
    """Writes config.json and safetensors into a folder that must be new or empty; whole or not at all.

    `weights` gives every weight once, on the CPU; all ranks draw from it, since to form one may take them all, and
    only the writer writes. `num_bytes` is their size. Raises WeightsError for a folder that is in use, a full disk.
    """
    target = Path(folder)
    beside = target.with_name(f"{target.name}.writing")
    if is_writer:
        _make_folder(target, beside)
    writer = _ShardWriter(beside, num_bytes) if is_writer else None
    try:
        for name, weight in weights:
            if writer is not None:
                writer.add(name, weight)
        if writer is not None:
            writer.finish()
            config: Any = model.config
            (beside / "config.json").write_text(config.to_json_string(use_diff=True))
            if target.exists():
                target.rmdir()
            beside.rename(target)
    except OSError as error:
        raise WeightsError(f"cannot write {beside}: {error}", "free space there, or give another folder") from error
    finally:
        if is_writer and beside.exists():
            shutil.rmtree(beside, ignore_errors=True)


def _make_folder(target: Path, beside: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WeightsError(f"{target} is there and not empty", "give a new folder")
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise WeightsError(f"cannot make {beside}: {error}", "remove it, or give another folder") from error


class _ShardWriter:
    """One file where all fits into one, else numbered files and their index, as save_pretrained names them."""

    def __init__(self, folder: Path, num_bytes: int) -> None:
        self._folder = folder
        self._is_single = num_bytes <= MAX_SHARD_BYTES
        self._total = num_bytes
        self._held: dict[str, Tensor] = {}
        self._held_bytes = 0
        self._shards: list[list[str]] = []

    def add(self, name: str, weight: Tensor) -> None:
        if self._held and self._held_bytes + weight.nbytes > MAX_SHARD_BYTES:
            self._flush()
        self._held[name] = weight
        self._held_bytes += weight.nbytes

    def finish(self) -> None:
        self._flush()
        if self._is_single:
            self._path(0).rename(self._folder / SINGLE)
            return
        names = [f"model-{i + 1:05d}-of-{len(self._shards):05d}.safetensors" for i in range(len(self._shards))]
        for i, name in enumerate(names):
            self._path(i).rename(self._folder / name)
        weight_map = {one: names[i] for i, shard in enumerate(self._shards) for one in shard}
        index = {"metadata": {"total_size": self._total}, "weight_map": weight_map}
        (self._folder / INDEX).write_text(json.dumps(index, indent=2))

    def _flush(self) -> None:
        save_file(self._held, self._path(len(self._shards)), metadata={"format": "pt"})
        self._shards.append(list(self._held))
        self._held, self._held_bytes = {}, 0

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.safetensors"


def gathered_weights(model: nn.Module, is_sharded: bool) -> Iterator[tuple[str, Tensor]]:
    """Each weight whole on the CPU, one at a time; under ZeRO-3 every rank takes part in gathering it."""
    import deepspeed

    for name, parameter in model.named_parameters():
        if is_sharded:
            with deepspeed.zero.GatheredParameters([parameter]):
                yield name, parameter.detach().to("cpu", copy=True).contiguous()
        else:
            yield name, parameter.detach().to("cpu", copy=True).contiguous()


def weight_bytes(model: nn.Module) -> int:
    return sum(
        int(getattr(parameter, "ds_numel", parameter.numel())) * parameter.element_size()
        for parameter in model.parameters()
    )
