"""Ranges of host memory as the CUDA driver registers them: none twice, none over another."""

from __future__ import annotations

from collections.abc import Callable

SUCCESS = 0
INVALID_VALUE = 1
OUT_OF_MEMORY = 2
ALREADY_REGISTERED = 712
NOT_REGISTERED = 713
"""cudaError_t, from driver_types.h."""


class PinnedRanges:
    """What is used of torch.cuda.cudart(). `num_allowed` registrations succeed, later ones find no memory.

    `before_release` is called before a range is given back.
    """

    def __init__(self, num_allowed: int | None = None, before_release: Callable[[], None] | None = None) -> None:
        self._before_release = before_release
        self.ranges: dict[int, int] = {}
        """Bytes by address."""
        self.pending_error = SUCCESS
        """What the next launch would report: an error stays until somebody asks for it."""
        self._num_allowed = num_allowed

    def cudaHostRegister(self, address: int, num_bytes: int, flags: int) -> int:  # noqa: N802 - CUDA's name
        del flags
        if num_bytes <= 0:
            return self._failed(INVALID_VALUE)
        if any(address < start + size and start < address + num_bytes for start, size in self.ranges.items()):
            return self._failed(ALREADY_REGISTERED)
        if self._num_allowed is not None and len(self.ranges) >= self._num_allowed:
            return self._failed(OUT_OF_MEMORY)
        self.ranges[address] = num_bytes
        return SUCCESS

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802 - CUDA's name
        if self._before_release is not None:
            self._before_release()
        return SUCCESS if self.ranges.pop(address, None) is not None else self._failed(NOT_REGISTERED)

    def cudaGetLastError(self) -> int:  # noqa: N802 - CUDA's name
        """The pending error, which is none from then on."""
        found, self.pending_error = self.pending_error, SUCCESS
        return found

    def is_copyable(self, address: int, num_bytes: int) -> bool:
        """Whether an asynchronous copy of it is legal: within one range, or outside of all of them."""
        touched = [
            (start, size)
            for start, size in self.ranges.items()
            if address < start + size and start < address + num_bytes
        ]
        if not touched:
            return True
        start, size = touched[0]
        return len(touched) == 1 and start <= address and address + num_bytes <= start + size

    def _failed(self, code: int) -> int:
        self.pending_error = code
        return code
