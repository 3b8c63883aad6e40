"""How a run's data is read: what `fpdt run`, `fpdt.worker` and `fpdt.prepare` take on their command lines."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

DTYPES = ("int32", "uint16")
"""Of a `.bin`, little-endian; the first unless an option says otherwise."""
LongDocuments = Literal["refuse", "split", "truncate"]


@dataclass(frozen=True)
class DataOptions:
    """None where the user has not chosen."""

    path: Path
    tokenizer: Path | None = None
    """Hugging Face tokenizer folder."""
    field: str | None = None
    """Of a row: its text, its messages or its token ids."""
    weights_field: str | None = None
    """Of a row: its loss weight, or one for each of its token ids."""
    dtype: str | None = None
    """Of a `.bin` without index."""
    shuffle: bool | None = None
    """Default: documents are shuffled, slices of a stream are not."""
    seed: int | None = None
    """Of the order; default: the plan's."""
    long_documents: LongDocuments | None = None
    """What becomes of documents longer than a sequence; default: they are refused."""
    cache: Path | None = None
    """Folder for what is prepared; default: CACHE_NAME beside the data."""

    @classmethod
    def of_run(cls, options: Mapping[str, Any]) -> DataOptions:
        """From a run's options, with the keys of protocol.RunOptions."""
        return cls.of(options["data"], options.get("data_options") or {})

    @classmethod
    def of(cls, path: str | Path, given: Mapping[str, Any]) -> DataOptions:
        """`given` has the keys of protocol.DataOptions, or of a command line."""
        chosen: dict[str, Any] = {name: given[name] for name in CHOICES if given.get(name) is not None}
        for name in FOLDERS & chosen.keys():
            chosen[name] = Path(chosen[name])
        return cls(Path(path), **chosen)


FOLDERS = frozenset({"tokenizer", "cache"})
CHOICES = tuple(field.name for field in fields(DataOptions) if field.name != "path")


def add_options(parser: argparse._ActionsContainer) -> None:
    """Those of DataOptions but for its path, under their command-line names."""
    parser.add_argument("--tokenizer", type=Path, help="Hugging Face tokenizer folder, for text, jsonl and FASTA")
    parser.add_argument("--data-field", dest="field", help="of a row: its text, messages or input_ids")
    parser.add_argument("--data-weights", dest="weights_field", help="field of a row with its loss weight or weights")
    parser.add_argument("--data-dtype", dest="dtype", choices=DTYPES, help="of a .bin without .idx; default: int32")
    parser.add_argument(
        "--shuffle", action=argparse.BooleanOptionalAction, help="order by seed and epoch; default: documents are"
    )
    parser.add_argument("--data-seed", dest="seed", type=int, help="of the order; default: the plan's seed")
    parser.add_argument(
        "--long-documents",
        choices=get_args(LongDocuments),
        help="what becomes of documents longer than a sequence; default: refuse",
    )
    parser.add_argument("--data-cache", dest="cache", type=Path, help="folder for what is prepared")


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """The command line as the keys of protocol.DataOptions."""
    given = {name: getattr(args, name) for name in CHOICES}
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
