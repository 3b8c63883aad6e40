"""Writes folders that `from_pretrained` loads, a config and safetensors, whole or not at all."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion

from fpdt.models.config import typed
from fpdt.models.weights import INDEX, SINGLE, WeightsError

MAX_SHARD_BYTES = 5 * 10**9
"""As transformers' save_pretrained cuts."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".index.json")
"""Of files that are not taken over from the folder a run started from."""
MAX_COPIED_BYTES = 256 << 20
"""A tokenizer's files are smaller."""
SPARE_BYTES = 1 << 20
"""For config, index and the safetensors headers."""


class FolderWriter(ABC):
    """Writes a folder beside `target`, which becomes `target` in `finish`; without it nothing is left.

    `num_bytes` of weights are announced, so that too small a disk is told before anything is computed. Raises
    WeightsError for a target that is in use, or a folder that cannot be written.
    """

    config_file: ClassVar[str]
    single_file: ClassVar[str]

    def __init__(self, target: Path, num_bytes: int) -> None:
        check_target(target, num_bytes)
        self.target = target
        self._target = target.absolute()
        self._beside = self._target.with_name(f"{target.name}.writing")
        self._shards = _Shards(self._beside, num_bytes, self.single_file)
        self.num_weights = 0
        self.num_bytes = 0

    def __enter__(self) -> FolderWriter:
        with _told(self._beside):
            self._beside.mkdir(parents=True)
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self._beside, ignore_errors=True)

    def add(self, model: nn.Module, name: str, weight: Tensor) -> None:
        """A whole weight on the CPU, by its name in the model; it is written under the name that checkpoints have."""
        with _told(self._beside):
            for saved, tensor in self._saved(model, name, weight).items():
                self._shards.add(saved, tensor)
        self.num_weights += 1
        self.num_bytes += weight.nbytes

    def finish(self, model: nn.Module) -> None:
        """To be called when all that it takes was added."""
        with _told(self._beside):
            self._shards.finish()
            for path in self._other_files():
                shutil.copyfile(path, self._beside / path.name)
            (self._beside / self.config_file).write_text(self._config(model))
            if self._target.exists():
                self._target.rmdir()
            self._beside.rename(self._target)

    @abstractmethod
    def takes(self, weight: nn.Parameter) -> bool:
        """Whether a weight of the model is to be added."""

    @abstractmethod
    def _saved(self, model: nn.Module, name: str, weight: Tensor) -> Mapping[str, Tensor]:
        """What the files have of a weight, by its name there."""

    @abstractmethod
    def _config(self, model: nn.Module) -> str:
        """The text of `config_file`."""

    def _other_files(self) -> Iterable[Path]:
        """Those that are taken over from the folder that the run started from."""
        return ()


class ModelWriter(FolderWriter):
    """Writes a whole model as save_pretrained does: AutoModelForCausalLM.from_pretrained loads it.

    Its config is the run's own, with what the weights in the folder are. `source` is a folder whose tokenizer and other
    small files are taken over.
    """

    config_file = "config.json"
    single_file = SINGLE

    def __init__(
        self, target: Path, num_bytes: int, hf_config: Mapping[str, Any], dtype: str, source: Path | None
    ) -> None:
        super().__init__(target, num_bytes)
        self._hf_config, self._dtype, self._source = hf_config, dtype, source

    def takes(self, weight: nn.Parameter) -> bool:
        return True

    def _saved(self, model: nn.Module, name: str, weight: Tensor) -> Mapping[str, Tensor]:
        saved: Mapping[str, Tensor] = revert_weight_conversion(model, {name: weight})  # type: ignore[arg-type]
        return saved

    def _config(self, model: nn.Module) -> str:
        given = typed(self._hf_config)
        key = "torch_dtype" if "torch_dtype" in given else "dtype"
        return json.dumps({**given, "architectures": [type(model).__name__], key: self._dtype}, indent=2) + "\n"

    def _other_files(self) -> Iterable[Path]:
        if self._source is None:
            return ()
        names = sorted(path for path in self._source.iterdir() if path.is_file() and not path.name.startswith("."))
        return [
            path
            for path in names
            if path.name != self.config_file
            and not path.name.endswith(WEIGHT_SUFFIXES)
            and path.stat().st_size <= MAX_COPIED_BYTES
        ]


def check_target(target: Path, num_bytes: int) -> None:
    """Raises WeightsError for a folder that is in use, or on a disk that is too full or not writable."""
    if target.is_symlink():
        raise WeightsError(f"{target} is a link", "give the folder that it leads to, or a new one")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WeightsError(f"{target} is there and not empty", "give a new folder for the export")
    parent = next(one for one in target.absolute().parents if one.exists())
    free = shutil.disk_usage(parent).free
    if free < num_bytes + SPARE_BYTES:
        raise WeightsError(
            f"the model takes {num_bytes} bytes, {parent} has {free} free", "free space there, or give another folder"
        )
    beside = target.absolute().with_name(f"{target.name}.writing")
    if beside.exists():
        raise WeightsError(f"{beside} is left of an export that was killed", "remove it, or give another folder")


def write_model(writer: FolderWriter, model: nn.Module, is_sharded: bool, is_writer: bool) -> None:
    """All that the writer takes, by the one rank that `is_writer`; a collective under ZeRO-3."""
    with writer if is_writer else nullcontext():
        for name, weight in _whole_weights(model, writer.takes, is_sharded, is_writer):
            writer.add(model, name, weight)
        if is_writer:
            writer.finish(model)


def _whole_weights(
    model: nn.Module, takes: Callable[[nn.Parameter], bool], is_sharded: bool, is_writer: bool
) -> Iterator[tuple[str, Tensor]]:
    """Each weight that is taken, whole on the CPU, one at a time, a tied one once; only the writer gets any.

    A collective under ZeRO-3: every rank draws all of them.
    """
    import deepspeed

    for name, parameter in model.named_parameters():
        if not takes(parameter):
            continue
        with deepspeed.zero.GatheredParameters([parameter], enabled=is_sharded):
            if is_writer:
                yield name, parameter.detach().to("cpu", copy=True).contiguous()


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """A failure to write as a WeightsError that says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write {folder}: {error}", "free space there, or give another folder") from error


class _Shards:
    """One file where all fits into one, else numbered files and their index, as save_pretrained names them."""

    def __init__(self, folder: Path, num_bytes: int, single: str) -> None:
        self._folder, self._single = folder, single
        self._is_single = num_bytes <= MAX_SHARD_BYTES
        self._total = num_bytes
        self._held: dict[str, Tensor] = {}
        self._held_bytes = 0
        self._files: list[list[str]] = []

    def add(self, name: str, weight: Tensor) -> None:
        if self._held and self._held_bytes + weight.nbytes > MAX_SHARD_BYTES:
            self._flush()
        self._held[name] = weight
        self._held_bytes += weight.nbytes

    def finish(self) -> None:
        self._flush()
        if self._is_single:
            self._path(0).rename(self._folder / self._single)
            return
        names = [f"model-{i + 1:05d}-of-{len(self._files):05d}.safetensors" for i in range(len(self._files))]
        for i, name in enumerate(names):
            self._path(i).rename(self._folder / name)
        weight_map = {one: names[i] for i, file in enumerate(self._files) for one in file}
        index = {"metadata": {"total_size": self._total}, "weight_map": weight_map}
        (self._folder / INDEX).write_text(json.dumps(index, indent=2))

    def _flush(self) -> None:
        save_file(self._held, self._path(len(self._files)), metadata={"format": "pt"})
        self._files.append(list(self._held))
        self._held, self._held_bytes = {}, 0

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.safetensors"
