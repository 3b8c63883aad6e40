"""The table of steps and their sizes, sizes.json, by device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

PATH = Path(__file__).with_name("sizes.json")


class StepRow(NamedTuple):
    """`need_seconds`: with less left of the whole time the step is not begun."""

    name: str
    work: str
    limit_seconds: float
    need_seconds: float
    sizes: dict[str, Any]


def device_sizes(device: str) -> dict[str, Any]:
    """Raises KeyError for a device that the table lacks."""
    found: dict[str, Any] = json.loads(PATH.read_text())[device]
    return found


def step_rows(sizes: dict[str, Any]) -> list[StepRow]:
    return [
        StepRow(row["name"], row["work"], row["limitSeconds"], row["needSeconds"], row.get("sizes", {}))
        for row in sizes["steps"]
    ]


def plan_row(sizes: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in sizes["plans"] if row["name"] == name)
    return found
