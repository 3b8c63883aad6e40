"""The one object that owns a device: its arenas, streams, events, clock and collectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fpdt.plan import Op
from fpdt.run.arena import Arena

Body = Callable[[], None]


class Runtime(ABC):
    """Runs op bodies on named streams. Handlers see `device`, `copy` and `all_to_all`; the executor sees the rest.

    A part is bracketed by `begin_part` and `finish_part`; within it the host never waits for the device. Bodies may run
    at once, later or concurrently, but each stream keeps its order and no body starts before the ops it waits for end.
    """

    def __init__(self, device: torch.device, arenas: Mapping[str, Arena], group: dist.ProcessGroup | None) -> None:
        self.device = device
        self.arenas = arenas
        self._group = group
        self._stream = "compute"
        self._copied_bytes = {"h2d": 0, "d2h": 0}

    @abstractmethod
    def begin_part(self, ops: Sequence[Op]) -> None: ...

    @abstractmethod
    def launch(self, op: Op, body: Body) -> None:
        """Queue `body` on the op's stream, after what the op waits for."""

    @abstractmethod
    def run_external(self, op: Op, body: Body) -> None:
        """Run work that the plan does not order, from the host: after all launched before it, before all after it."""

    @abstractmethod
    def finish_part(self) -> None:
        """Join the streams: what the host does next comes after every op of the part."""

    @abstractmethod
    def abandon_part(self) -> None:
        """Forget what was queued, after an error."""

    @abstractmethod
    def mark(self) -> Any:
        """A point in the time of the current stream, for `seconds_between`."""

    @abstractmethod
    def seconds_between(self, start: Any, end: Any) -> float:
        """Seconds from one mark to another; both must have been reached, see `synchronize`."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for everything launched so far."""

    @abstractmethod
    def device_peak_bytes(self) -> int | None:
        """The device allocator's own peak since the last `reset_device_peak`, arena included; None if it keeps none."""

    @abstractmethod
    def reset_device_peak(self) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Give back what the device registered; the arenas must not be used afterwards."""

    @property
    def stream(self) -> str:
        """Name of the stream whose op runs now."""
        return self._stream

    def now(self) -> float:
        """Seconds of the device's clock, after all work launched so far."""
        self.synchronize()
        return self.seconds_between(self._origin, self.mark())

    @property
    @abstractmethod
    def _origin(self) -> Any:
        """The mark that `now` counts from."""

    def copy(self, dst: Tensor, src: Tensor) -> None:
        """dst = src on the current stream; on h2d and d2h the bytes are counted as that direction's."""
        dst.copy_(src, non_blocking=True)
        if self._stream in self._copied_bytes:
            self._copied_bytes[self._stream] += dst.numel() * dst.element_size()

    def all_to_all(self, out: Tensor, in_: Tensor) -> None:
        """Equal blocks of contiguous `in_` to the ranks of the sequence group, theirs into `out`; alone, a plain copy.

        The block for, and from, rank r is the r-th part of the flattened tensor.
        """
        if self._group is None or self._group.size() == 1:
            out.copy_(in_)
        else:
            dist.all_to_all_single(_as_bytes(out), _as_bytes(in_), group=self._group)

    def take_copied_bytes(self) -> dict[str, int]:
        """Bytes copied per direction since the last call."""
        taken, self._copied_bytes = self._copied_bytes, {"h2d": 0, "d2h": 0}
        return taken

    def _run_body(self, op: Op, body: Body) -> None:
        self._stream = op.stream
        try:
            body()
        finally:
            self._stream = "compute"


def _as_bytes(tensor: Tensor) -> Tensor:
    """Backends differ in the dtypes they know; all move bytes."""
    return tensor.view(-1).view(torch.uint8)
