"""A twin of PyTorch's caching allocator on a made-up device: blocks by stream, in segments that stay.

Rules are those of c10/cuda/CUDACachingAllocator.cpp: sizes are rounded, small and large blocks have segments of their
own, a stream takes the smallest of its free blocks that is large enough and splits it, free neighbours become one. A
block that other streams have used is free when they have come to where they were when it was given back, and not
before. Memory is without end here: nothing is retried, no cached segment goes back.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

from fpdt.testing.fake_cuda.device import Command, Stream

ALIGNMENT = 512
MAX_SMALL = 1 << 20
SMALL_SEGMENT = 2 << 20
MIN_LARGE = 10 << 20
LARGE_SEGMENT = 20 << 20
LARGE_ALIGNMENT = 2 << 20


@dataclass(eq=False)
class Block:
    """Of the segments of `stream`; its neighbours there are `before` and `after`."""

    stream: Stream
    num_bytes: int
    is_small: bool
    is_used: bool = False
    before: Block | None = field(default=None, repr=False)
    after: Block | None = field(default=None, repr=False)
    users: set[Stream] = field(default_factory=set)
    """Other streams that use it."""
    num_awaited: int = 0


class CachingAllocator:
    def __init__(self) -> None:
        self.active_bytes = 0
        """In blocks that are in use, or wait for a stream."""
        self.peak_bytes = 0
        self.reserved_bytes = 0
        self._free: defaultdict[tuple[Stream, bool], list[Block]] = defaultdict(list)
        self._awaited: defaultdict[Stream, deque[tuple[Command, Block]]] = defaultdict(deque)

    def allocate(self, num_bytes: int, stream: Stream) -> Block:
        """For a tensor that is made while the stream is current."""
        self._take_back()
        size = _rounded(max(num_bytes, 1), ALIGNMENT)
        is_small = size <= MAX_SMALL
        block = self._best(size, stream, is_small) or self._new_segment(size, stream, is_small)
        self._split(block, size)
        block.is_used = True
        self.active_bytes += block.num_bytes
        self.peak_bytes = max(self.peak_bytes, self.active_bytes)
        return block

    def record_stream(self, block: Block, stream: Stream) -> None:
        """Another stream than its own uses it, from now until it is given back."""
        if stream is not block.stream:
            block.users.add(stream)

    def give_back(self, block: Block) -> None:
        """The tensor is gone: its own stream may use the bytes at once, in order; others' uses are waited for."""
        block.num_awaited = len(block.users)
        for stream in block.users:
            self._awaited[stream].append((stream.queue_command([]), block))
        block.users = set()
        if block.num_awaited == 0:
            self._release(block)

    def _take_back(self) -> None:
        """Blocks that no stream uses any more; each stream's in their order."""
        for waiting in self._awaited.values():
            while waiting and waiting[0][0].is_done:
                _, block = waiting.popleft()
                block.num_awaited -= 1
                if block.num_awaited == 0:
                    self._release(block)

    def _best(self, size: int, stream: Stream, is_small: bool) -> Block | None:
        free = self._free[stream, is_small]
        best = min(
            (block for block in free if block.num_bytes >= size), key=lambda block: block.num_bytes, default=None
        )
        if best is not None:
            free.remove(best)
        return best

    def _new_segment(self, size: int, stream: Stream, is_small: bool) -> Block:
        block = Block(stream, _segment_bytes(size, is_small), is_small)
        self.reserved_bytes += block.num_bytes
        return block

    def _split(self, block: Block, size: int) -> None:
        """What is left is a block of its own; of a large one only where it is no small one."""
        left = block.num_bytes - size
        least = ALIGNMENT if block.is_small else MAX_SMALL + 1
        if left < least:
            return
        rest = Block(block.stream, left, block.is_small, before=block, after=block.after)
        if block.after is not None:
            block.after.before = rest
        block.num_bytes, block.after = size, rest
        self._free[rest.stream, rest.is_small].append(rest)

    def _release(self, block: Block) -> None:
        self.active_bytes -= block.num_bytes
        block.is_used = False
        free = self._free[block.stream, block.is_small]
        before, after = block.before, block.after
        if after is not None and not after.is_used:
            free.remove(after)
            _join(block, after)
        if before is not None and not before.is_used:
            free.remove(before)
            _join(before, block)
            block = before
        free.append(block)


def _segment_bytes(size: int, is_small: bool) -> int:
    if is_small:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size < MIN_LARGE else _rounded(size, LARGE_ALIGNMENT)


def _join(block: Block, after: Block) -> None:
    block.num_bytes += after.num_bytes
    block.after = after.after
    if block.after is not None:
        block.after.before = block


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit
