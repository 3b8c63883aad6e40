"""A CUDA device that does nothing: streams and events whose methods count and return. What is left is the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from fpdt.devices import cuda
from fpdt.testing.fake_cuda.pinned import PinnedRanges


@contextmanager
def null_device(calls: Counter[str]) -> Iterator[None]:
    """What the CUDA runtime finds of CUDA; `calls` counts by the names of methods."""
    ranges = PinnedRanges()

    class NullStream:
        def __init__(self, *_: Any, **__: Any) -> None:
            calls["Stream"] += 1

        def wait_event(self, event: Any) -> None:
            calls["wait_event"] += 1

        def wait_stream(self, stream: Any) -> None:
            calls["wait_stream"] += 1

    class NullEvent:
        def __init__(self, enable_timing: bool = False) -> None:
            calls["Event"] += 1

        def record(self, stream: Any = None) -> None:
            calls["record"] += 1

        def query(self) -> bool:
            calls["query"] += 1
            return True

        def synchronize(self) -> None:
            calls["synchronize"] += 1

        def elapsed_time(self, end: Any) -> float:
            calls["elapsed_time"] += 1
            return 0.0

    current: list[Any] = [NullStream()]

    def set_stream(stream: Any) -> None:
        calls["set_stream"] += 1
        current[0] = stream

    def current_stream(device: Any = None) -> Any:
        calls["current_stream"] += 1
        return current[0]

    replaced = {
        "current_stream": current_stream,
        "set_stream": set_stream,
        "synchronize": lambda device=None: None,
        "cudart": lambda: ranges,
    }
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(cuda, "Stream", NullStream))
        patches.enter_context(mock.patch.object(cuda, "Event", NullEvent))
        for name, value in replaced.items():
            patches.enter_context(mock.patch.object(torch.cuda, name, value))
        yield
