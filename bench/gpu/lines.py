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
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
