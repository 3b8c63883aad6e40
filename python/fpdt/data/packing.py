"""Which documents share a sequence.

Documents are taken in the order of the epoch, WINDOW at a time, so that the first batch waits for one window, not for
an epoch of millions. Within a window each, the longest first, goes where it leaves the least room: best fit decreasing
needs at most 11/9 of the fewest sequences possible, plus 4 (Johnson et al., SIAM J. Comput. 3, 1974).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict

import numpy as np

from fpdt.data.order import shuffled
from fpdt.data.tokens import Int64

WINDOW = 4096
KEPT_WINDOWS = 4
"""Replicas and the batch that is read ahead ask for neighbours."""


def pack(lengths: Int64, capacity: int) -> list[list[int]]:
    """Numbers of documents by sequence, ascending in each; `lengths` are at most `capacity`. Sequences come in the
    order of their longest document's number, so that a shuffled window stays shuffled."""
    sequences: list[list[int]] = []
    # Room left in a sequence and its number as one integer, ascending: the first that is large enough fits best.
    rooms: list[int] = []
    stride = len(lengths) + 1
    for document in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[document])
        at = bisect_left(rooms, length * stride)
        if at == len(rooms):
            room, number = capacity, len(sequences)
            sequences.append([])
        else:
            room, number = divmod(rooms.pop(at), stride)
        sequences[number].append(document)
        insort(rooms, (room - length) * stride + number)
    return [sorted(documents) for documents in sorted(sequences)]


class Packing:
    """Sequences of documents by number, epoch after epoch. `seed` is None where documents keep the order they have."""

    def __init__(self, lengths: Int64, capacity: int, seed: int | None) -> None:
        self._lengths, self._capacity, self._seed = lengths, capacity, seed
        self._windows_per_epoch = -(-len(lengths) // WINDOW)
        self._ends = [0]
        """Sequences in the first n windows of all epochs."""
        self._order: tuple[int, Int64] | None = None
        self._kept: OrderedDict[int, list[Int64]] = OrderedDict()

    @property
    def num_in_epoch(self) -> int:
        """Sequences of the first epoch, which is packed for it."""
        while len(self._ends) <= self._windows_per_epoch:
            self._pack_next()
        return self._ends[self._windows_per_epoch]

    def documents(self, number: int) -> Int64:
        """Those of sequence `number`, in the order in which they stand in it. Windows before it are packed once."""
        while number >= self._ends[-1]:
            self._pack_next()
        window = bisect_right(self._ends, number) - 1
        return self._window(window)[number - self._ends[window]]

    def _pack_next(self) -> None:
        self._ends.append(self._ends[-1] + len(self._window(len(self._ends) - 1)))

    def _window(self, number: int) -> list[Int64]:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        epoch, place = divmod(number, self._windows_per_epoch)
        documents = self._epoch(epoch)[place * WINDOW : (place + 1) * WINDOW]
        packed = [documents[chosen] for chosen in pack(self._lengths[documents], self._capacity)]
        self._kept[number] = packed
        if len(self._kept) > KEPT_WINDOWS:
            self._kept.popitem(last=False)
        return packed

    def _epoch(self, epoch: int) -> Int64:
        if self._order is None or self._order[0] != epoch:
            count = len(self._lengths)
            order = np.arange(count) if self._seed is None else shuffled(count, self._seed, epoch)
            self._order = epoch, order
        return self._order[1]
