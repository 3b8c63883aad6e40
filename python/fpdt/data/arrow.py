"""Rows of a `datasets` folder on disk, as `save_to_disk` writes it: Arrow streams, named by `state.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fpdt.data.progress import Progress
from fpdt.data.records import Row
from fpdt.errors import DataError

STATE = "state.json"
SPLITS = "dataset_dict.json"
SAVE_AGAIN = "write it with datasets.Dataset.save_to_disk"
INSTALL = "pip install nanoarrow==0.9.0"


def arrow_files(folder: Path) -> list[Path]:
    """Those of a dataset, in order. Raises DataError for a folder that is none, or that holds several."""
    if (folder / SPLITS).is_file():
        splits = _read_json(folder / SPLITS).get("splits", [])
        raise DataError(
            f"{folder} holds the splits {', '.join(splits)}", f"give the folder of one, e.g. {folder / str(splits[0])}"
        )
    if not (folder / STATE).is_file():
        raise DataError(f"{folder} has no {STATE}, so it is no dataset", SAVE_AGAIN)
    state = _read_json(folder / STATE)
    if state.get("_indices_data_files"):
        raise DataError(f"{folder} keeps the order of its rows apart", "call flatten_indices() before save_to_disk()")
    files = [folder / entry["filename"] for entry in state.get("_data_files", [])]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise DataError(f"{folder} lacks {missing[0] if missing else 'any data file'}", SAVE_AGAIN)
    return files


def arrow_rows(folder: Path, progress: Progress) -> Iterator[tuple[int, Row]]:
    """(row from 1, its columns); a record batch at a time is in memory. Raises DataError."""
    try:
        import nanoarrow
        from nanoarrow._utils import NanoarrowException
    except ImportError as error:
        raise DataError(f"{folder} is a dataset in Arrow files, which need a package: {error}", INSTALL) from error
    number = 0
    for path in arrow_files(folder):
        try:
            with nanoarrow.ArrayStream.from_path(path) as stream:
                names = [field.name for field in stream.schema.fields]
                for batch in stream:
                    for values in batch.iter_tuples():
                        number += 1
                        yield number, dict(zip(names, values, strict=True))
        except NanoarrowException as error:
            raise DataError(f"{path} is no Arrow stream, or cut short: {error}", SAVE_AGAIN) from error
        progress.advance(path.stat().st_size)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}", SAVE_AGAIN) from error
    return found
