"""How far a preparation is, now and then, for whoever waits."""

from __future__ import annotations

import sys
import time

SECONDS = 5.0


class Progress:
    """Of a source of so many bytes, or rows."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total = name, total
        self._done, self._last = 0, time.monotonic()

    def advance(self, amount: int) -> None:
        """Prints a line to stderr every SECONDS."""
        self._done += amount
        now = time.monotonic()
        if now - self._last >= SECONDS:
            self._last = now
            print(
                f"prepared {100 * self._done / max(1, self._total):.1f}% of {self._name}", file=sys.stderr, flush=True
            )
