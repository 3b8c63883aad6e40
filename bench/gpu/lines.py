"""JSON lines that are in the file as soon as they are known: a process that is killed next has left them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any


class Lines:
    """Of one step; `failures` are the checks that did not hold."""

    def __init__(self, path: Path, step: str) -> None:
        self._path, self._step = path, step
        self.failures: list[str] = []

    def add(self, kind: str, **facts: Any) -> None:
        append(self._path, {"step": self._step, "kind": kind, **facts})

    def check(self, what: str, ok: bool, **facts: Any) -> None:
        """A fact that must hold; the step goes on and fails at its end."""
        if not ok:
            self.failures.append(what)
        self.add("check", what=what, ok=bool(ok), **facts)


def append(path: Path, line: dict[str, Any]) -> None:
    """One write: lines of two processes do not mix."""
    data = (json.dumps(_finite(line), allow_nan=False) + "\n").encode()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, data)
    finally:
        os.close(file)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Those of the file; none where there is none. Raises SystemExit for a line that is no JSON object."""
    return [_parsed(path, number, line) for number, line in _numbered(path) if line]


def _numbered(path: Path) -> list[tuple[int, str]]:
    return list(enumerate(path.read_text().splitlines(), 1)) if path.exists() else []


def _parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise SystemExit(f"{path}:{number} is no line of JSON ({error}): leave it out") from error
    if isinstance(value, dict):
        return value
    raise SystemExit(f"{path}:{number} is no JSON object: leave it out")


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
