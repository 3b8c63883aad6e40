"""What `--data` names, by its name and what lies beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fpdt.data.arrow import arrow_files
from fpdt.data.flat import check_file
from fpdt.data.options import DataOptions
from fpdt.errors import DataError

Kind = Literal["bytes", "bin", "npy", "megatron", "text", "jsonl", "fasta", "arrow"]

PREPARED: frozenset[Kind] = frozenset({"text", "jsonl", "fasta", "arrow"})
"""Kinds that ranks do not read themselves."""
SUFFIXES: dict[str, Kind] = {
    ".npy": "npy",
    ".bin": "bin",
    ".idx": "megatron",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    **dict.fromkeys((".fasta", ".fa", ".fna", ".faa", ".ffn", ".frn"), "fasta"),
}
REFUSED = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip"), "unpack it"),
    ".json": "write one JSON object a line into a .jsonl file",
    ".parquet": "write it with datasets.Dataset.save_to_disk, or as a .jsonl file",
    ".arrow": "give the folder that datasets.Dataset.save_to_disk wrote",
}
LEAVE_OUT = "leave it out"
ROW_OPTIONS = {"field": "--data-field", "weights_field": "--data-weights"}


def kind_of(options: DataOptions) -> Kind:
    """Raises DataError for a kind that is not known, and for options that another kind has."""
    kind = _kind(options)
    if options.tokenizer is not None and kind in ("bin", "npy", "megatron"):
        raise DataError(f"{options.path} has token ids already", "leave --tokenizer out")
    if options.dtype is not None and kind != "bin":
        raise DataError(f"--data-dtype is for a .bin without .idx; {options.path} is {kind}", LEAVE_OUT)
    for name, flag in ROW_OPTIONS.items():
        if getattr(options, name) is not None and kind not in ("jsonl", "arrow"):
            raise DataError(f"{flag} is for rows, of .jsonl files and datasets; {options.path} is {kind}", LEAVE_OUT)
    return kind


def source_files(options: DataOptions) -> list[Path]:
    """Files that the tokens of a prepared kind are made of."""
    if options.path.is_dir():
        return arrow_files(options.path)
    check_file(options.path)
    return [options.path]


def _kind(options: DataOptions) -> Kind:
    path = options.path
    if path.is_dir():
        return "arrow"
    suffix = path.suffix.lower()
    if suffix in REFUSED:
        raise DataError(f"{path} cannot be read as it is", REFUSED[suffix])
    if suffix == ".bin" and path.with_suffix(".idx").exists():
        return "megatron"
    return SUFFIXES.get(suffix) or ("bytes" if options.tokenizer is None else "text")
