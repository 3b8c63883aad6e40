"""Rows of a jsonl file, with their lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fpdt.data.progress import Progress
from fpdt.errors import DataError

Row = Mapping[str, Any]


def jsonl_rows(path: Path, progress: Progress) -> Iterator[tuple[int, Row]]:
    """(line from 1, its object). Raises DataError for a line that is none; a line at a time is in memory."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            progress.advance(len(line))
            yield number, _parse(path, number, line)


def _parse(path: Path, number: int, line: bytes) -> Row:
    place = f"line {number} of {path}"
    if not line.strip():
        raise DataError(f"{place} is blank", "take it out")
    try:
        row = json.loads(line)
    except ValueError as error:
        hint = "write one JSON object a line"
        if not line.endswith(b"\n"):
            hint += "; the file may have been cut short"
        raise DataError(f"{place} is not JSON: {error}", hint) from error
    if not isinstance(row, dict):
        raise DataError(f"{place} is no JSON object but {type(row).__name__}", "write one JSON object a line")
    return row
