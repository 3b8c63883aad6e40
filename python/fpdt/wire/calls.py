"""Answers single calls from TypeScript, in which only JSON text crosses the bridge."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def answer(functions: Mapping[str, Callable[..., Any]], name: str, arguments: str) -> str:
    """Calls one with JSON arguments; JSON of `{"ok": result}` or of `{"error": {kind, message, hint, traceback}}`."""
    os.dup2(2, 1)  # Libraries print; standard output belongs to whoever started this.
    try:
        return json.dumps({"ok": functions[name](**json.loads(arguments))}, allow_nan=False)
    except Exception as error:
        facts = {
            "kind": type(error).__name__,
            "message": str(error),
            "hint": getattr(error, "hint", "") or None,
            "traceback": traceback.format_exc(),
        }
        return json.dumps({"error": facts})
