"""Memory of a CUDA device: an arena of it, and what PyTorch's allocator says of all that it gave out."""

from __future__ import annotations

import torch

from fpdt.errors import ArenaError
from fpdt.run.arena import Arena


def allocator_peak_bytes(device: torch.device) -> int:
    return int(torch.cuda.max_memory_allocated(device))


def reset_allocator_peak(device: torch.device) -> None:
    torch.cuda.reset_peak_memory_stats(device)


def allocated_elsewhere_bytes(device: torch.device) -> int:
    """What of the device is in use, but for what PyTorch's allocator has: context, communicators, other processes."""
    free, total = torch.cuda.mem_get_info(device)
    return total - free - int(torch.cuda.memory_reserved(device))


def device_arena(name: str, num_bytes: int, device: torch.device) -> Arena:
    """Raises ArenaError where the device has no room for it."""
    try:
        return Arena(name, torch.empty(num_bytes, dtype=torch.uint8, device=device))
    except torch.cuda.OutOfMemoryError as error:
        free, total = torch.cuda.mem_get_info(device)
        found = f"{free} of {total} bytes of {device} are free"
        raise ArenaError(f"the {name} arena needs {num_bytes} bytes; {found}", "lower its bytes") from error
