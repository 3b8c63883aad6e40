"""The weights of a Hugging Face folder: safetensors, read tensor by tensor."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from fpdt.data.fingerprint import Fingerprint, of_files
from fpdt.errors import FpdtError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
FLOATS = ("F64", "F32", "F16", "BF16")
"""Dtypes, as safetensors writes them, that are the weights themselves."""
_SHOWN = 4
_OTHER_MODEL = "plan for the model that the folder holds: its config.json"
_COPY = "copy the file again"


class WeightsError(FpdtError):
    """A folder whose weights are not the model's, or cannot be read or written."""


class WeightFolder:
    """The tensors of a folder by their names. Files stay open; a tensor is read when it is asked for."""

    def __init__(self, folder: str | Path) -> None:
        """Raises WeightsError for a folder without safetensors, a file that is missing, broken or out of reach."""
        self.folder = Path(folder)
        with _reached(self.folder):
            if not self.folder.is_dir():
                raise WeightsError(f"no folder {self.folder}", "give a folder with config.json and safetensors")
            self._index = self._read_index()
            paths = self._paths()
        self._open = ExitStack()
        self._files = {path: self._enter(path) for path in paths}
        self._path_of = self._find_names()
        self._check_index()

    @property
    def paths(self) -> Sequence[Path]:
        """Of its files, by name."""
        return sorted(self._files)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._path_of)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file_of(name).get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """As safetensors writes it: F32, BF16, I8."""
        return str(self._file_of(name).get_slice(name).get_dtype())

    def tensor(self, name: str) -> Tensor:
        """On the CPU, in the file's dtype."""
        tensor: Tensor = self._file_of(name).get_tensor(name)
        return tensor

    def place(self, name: str) -> str:
        """For messages: the name and its file."""
        return f"{name} in {self._path_of[name].name}"

    def __enter__(self) -> WeightFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _read_index(self) -> Mapping[str, str] | None:
        """Names of files by those of weights; None where there is no index."""
        path = self.folder / INDEX
        if not path.exists():
            return None
        with _reached(path):
            content = path.read_bytes()
        try:
            weight_map: object = json.loads(content)["weight_map"]
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{path} has no weight_map: {error!r}", _COPY) from error
        if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
            raise WeightsError(f"the weight_map of {path} does not give each weight the name of its file", _COPY)
        return weight_map

    def _paths(self) -> list[Path]:
        if self._index is not None:
            return [self._named_by_index(name) for name in sorted(set(self._index.values()))]
        if (self.folder / SINGLE).exists():
            return [self.folder / SINGLE]
        found = sorted(self.folder.glob("*.safetensors"))
        if not found:
            others = sorted(path.name for path in self.folder.glob("*.bin"))
            hint = "convert it: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)"
            raise WeightsError(
                f"{self.folder} has no safetensors{f', only {others[0]}' if others else ''}",
                hint if others else f"expected {SINGLE} or {INDEX} and the files that it names",
            )
        return found

    def _named_by_index(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise WeightsError(f"{INDEX} names {name}, which is not in {self.folder}", "copy the missing file there")
        return path

    def _enter(self, path: Path) -> Any:
        with _reached(path):
            path.open("rb").close()  # Of a file that it may not open, safe_open says that there is none.
            try:
                return self._open.enter_context(safe_open(path, framework="pt"))
            except SafetensorError as error:
                raise WeightsError(f"{path} cannot be read: {error}", "it was cut short: copy it again") from error

    def _find_names(self) -> Mapping[str, Path]:
        path_of: dict[str, Path] = {}
        for path, opened in self._files.items():
            for name in opened.keys():  # noqa: SIM118
                if name in path_of:
                    raise WeightsError(
                        f"{name} is in {path_of[name].name} and in {path.name} of {self.folder}",
                        "leave only the files of one checkpoint there",
                    )
                path_of[name] = path
        return path_of

    def _file_of(self, name: str) -> Any:
        return self._files[self._path_of[name]]

    def _check_index(self) -> None:
        missing = sorted(set(self._index or ()) - self.names)
        if missing:
            raise WeightsError(f"{INDEX} names {_some(missing)}, which no file of {self.folder} has", "copy it again")


@contextmanager
def _reached(path: Path) -> Iterator[None]:
    """What the system refuses as a WeightsError that says what to do."""
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror or error}", "see that it is there, and that this user may read it"
        ) from error


def weights_fingerprint(folder: Path) -> Fingerprint:
    """Of its safetensors. Raises WeightsError as WeightFolder does where it has none that can be read."""
    with WeightFolder(folder) as weights, _reached(folder):
        return of_files(*weights.paths)


def check_vocabulary(folder: Path, vocab_size: int) -> None:
    """Raises WeightsError where the folder's tokenizer makes tokens that the model has no row for."""
    path = folder / "tokenizer.json"
    with _reached(path):
        if not path.exists():
            return
        content = path.read_bytes()
    try:
        vocabulary: Mapping[str, int] = Tokenizer.from_buffer(content).get_vocab(with_added_tokens=True)
    except Exception as error:  # The library raises nothing more precise.
        raise WeightsError(f"{path} cannot be read: {error}", _COPY) from error
    token, number = max(vocabulary.items(), key=lambda item: item[1], default=("", -1))
    if number >= vocab_size:
        raise WeightsError(
            f"{path} has token {number} ({token!r}), the model's vocab_size is {vocab_size}",
            "use the model's own tokenizer, or plan for the model that the folder holds",
        )


def match_names(model: Any, shapes: Mapping[str, Sequence[int]], folder: WeightFolder) -> dict[str, str]:
    """The folder's name of each weight of the model, a tied one once; `shapes` has theirs.

    Names are translated as transformers does when it loads: those of older checkpoints, and of a model without its
    head. Raises WeightsError that names weights which are missing, left over or of another shape.
    """
    renamed = _renamed(model, shapes, folder)
    found: dict[str, str] = {}
    for name in shapes:
        known = next((renamed[one] for one in (name, *_aliases(model, name)) if one in renamed), None)
        if known is not None:
            found[name] = known
    _refuse(folder, "lacks", [name for name in shapes if name not in found], "of the model")
    used = {name for known in found for name in (known, *_aliases(model, known))}
    ignored = [re.compile(one) for one in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()]
    extra = [known for name, known in renamed.items() if name not in used and not _is_ignored(name, ignored)]
    _refuse(folder, "has", sorted(extra), "that the model lacks")
    for name, known in found.items():
        given, wanted = list(folder.shape(known)), list(shapes[name])
        if given != wanted:
            raise WeightsError(f"{known} of {folder.folder} has shape {given}, the model's is {wanted}", _OTHER_MODEL)
        if folder.dtype(known) not in FLOATS:
            raise WeightsError(
                f"{known} of {folder.folder} is {folder.dtype(known)}, not one of {', '.join(FLOATS)}",
                "take the model's unquantised weights: these are to be read with their scales",
            )
    return found


def _refuse(folder: WeightFolder, what: str, names: Sequence[str], whose: str) -> None:
    if names:
        count = "a weight" if len(names) == 1 else f"{len(names)} weights"
        raise WeightsError(f"{folder.folder} {what} {count} {whose}: {_some(names)}", _OTHER_MODEL)


def _renamed(model: Any, shapes: Mapping[str, Sequence[int]], folder: WeightFolder) -> dict[str, str]:
    """The folder's names by what the installed transformers calls these weights."""
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    prefix = str(getattr(model, "base_model_prefix", ""))
    renamed: dict[str, str] = {}
    for known in sorted(folder.names):
        name, converted = rename_source_key(known, renamings, converters, prefix, dict(shapes))
        if converted is not None:
            raise WeightsError(
                f"{known} of {folder.folder} is laid out in another way than the model's {name}",
                "convert it: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)",
            )
        if name in renamed and any(one in shapes for one in (name, *_aliases(model, name))):
            both = f"{folder.place(renamed[name])} and {folder.place(known)}"
            raise WeightsError(
                f"{both} of {folder.folder} are both the model's {name}", "leave out the one that is not meant"
            )
        renamed[name] = known
    return renamed


def _aliases(model: Any, name: str) -> list[str]:
    """Other names of a tied weight."""
    tied: Any = getattr(model, "all_tied_weights_keys", None) or {}
    return [a if b == name else b for a, b in dict(tied).items() if name in (a, b)]


def _is_ignored(name: str, patterns: Sequence[re.Pattern[str]]) -> bool:
    """Buffers that older versions of transformers wrote too."""
    return name.endswith((".inv_freq", ".masked_bias", ".attn.bias", ".attention.bias")) or any(
        pattern.search(name) for pattern in patterns
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
