"""DeepSpeed's asynchronous branches on CPU tensors: an accelerator that says it has streams, and counts what is asked.

And whatever makes the host wait for the device, of DeepSpeed's or ours: who asked for it, and whether in a turn.
Nothing is postponed on DeepSpeed's own streams.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from fpdt.run.executor import Executor
from fpdt.testing.fake_cuda.device import Device

READS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim")
"""Of aten, the ops whose result, or its size, the host must know before it goes on."""
BYSTANDERS = ("/fpdt/testing/", "/fpdt/measure/memory.py")
"""What only a CPU runs."""
OURS, DEEPSPEEDS = "ours", "DeepSpeed's"


@dataclass(frozen=True)
class HostWait:
    """`place` is the function that waited."""

    owner: str
    place: str
    in_turn: bool


class HostWaits:
    """Everything that made the host wait since it was cleared, and calls of DeepSpeed's streams by name."""

    def __init__(self) -> None:
        self.waits: list[HostWait] = []
        self.calls: Counter[str] = Counter()
        self.in_turn = False

    def note(self, what: str) -> None:
        """By the innermost function of DeepSpeed's or ours that is running."""
        frame = sys._getframe(1)
        while frame.f_back is not None:
            path = frame.f_code.co_filename
            is_ours = "/fpdt/" in path and not any(part in path for part in BYSTANDERS)
            if is_ours or "/deepspeed/" in path:
                owner = OURS if is_ours else DEEPSPEEDS
                self.waits.append(HostWait(owner, f"{frame.f_code.co_qualname}: {what}", self.in_turn))
                return
            frame = frame.f_back

    def clear(self) -> None:
        self.waits.clear()
        self.calls.clear()


@contextmanager
def asynchronous(waits: HostWaits, device: Device) -> Iterator[None]:
    """Engines made inside work with streams; `device` is the one of the plan's own."""
    device.heard = waits.note
    with ExitStack() as patches:
        for name, value in _answers(waits).items():
            patches.enter_context(mock.patch.object(CPU_Accelerator, name, value))
        counted = _counting(waits, "record_stream")
        patches.enter_context(mock.patch.object(torch.Tensor, "record_stream", counted))
        patches.enter_context(mock.patch.object(Executor, "_run", _marking(waits, Executor._run)))
        patches.enter_context(_Reads(waits))
        yield


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes where the host reads a tensor."""

    def __init__(self, waits: HostWaits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in READS:
            self._waits.note(name)
        return func(*args, **(kwargs or {}))


def _answers(waits: HostWaits) -> dict[str, Any]:
    """What the accelerator says and has in place of the CPU's."""

    class CountedStream:
        def __init__(self, *_: Any, **__: Any) -> None:
            waits.calls["Stream"] += 1

        def wait_stream(self, _: Any) -> None:
            waits.calls["wait_stream"] += 1

        def wait_event(self, _: Any) -> None:
            waits.calls["wait_event"] += 1

        def synchronize(self) -> None:
            waits.note("stream.synchronize")

    class CountedEvent:
        def __init__(self, *_: Any, **__: Any) -> None:
            waits.calls["Event"] += 1

        def record(self, *_: Any) -> None:
            waits.calls["record"] += 1

        def wait(self, *_: Any) -> None:
            waits.calls["wait_event"] += 1

        def query(self) -> bool:
            return True

        def synchronize(self) -> None:
            waits.note("event.synchronize")

    default = CountedStream()
    return {
        "is_synchronized_device": lambda self: False,
        "resolves_data_dependency": lambda self: False,
        "handles_memory_backpressure": lambda self: False,
        "use_host_timers": lambda self: True,
        "Stream": CountedStream,
        "Event": CountedEvent,
        "stream": lambda self, stream: nullcontext(),
        "current_stream": lambda self, device_index=None: default,
        "default_stream": lambda self, device_index=None: default,
        "synchronize": lambda self, device_index=None: waits.note("synchronize"),
    }


def _counting(waits: HostWaits, name: str) -> Callable[..., None]:
    def count(*_: Any) -> None:
        waits.calls[name] += 1

    return count


def _marking(waits: HostWaits, run: Callable[..., None]) -> Callable[..., None]:
    def marked(*args: Any) -> None:
        outer, waits.in_turn = waits.in_turn, True
        try:
            run(*args)
        finally:
            waits.in_turn = outer

    return marked
