"""Reads the batch that comes next while a step runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from fpdt.data.batch import Batch


class ReadAhead:
    """All reading happens in one thread, which starts with the first batch and ends with `close`. Two batches are kept:
    the one that was taken, since it is counted before it is trained on, and the one after it.

    An error arrives where the batch it concerns is taken; of a batch that nobody takes it is never heard.
    """

    def __init__(self, read: Callable[[int], Batch], stride: int) -> None:
        """`read` makes the batch of a sequence; the one after n is n + stride."""
        self._read, self._stride = read, stride
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fpdt-data")
        self._batches: OrderedDict[int, Future[Batch]] = OrderedDict()

    def take(self, number: int) -> Batch:
        """Of a sequence; read now where it is not there, and the one after it in the background."""
        batch = self._submit(number)
        following = number + self._stride
        self._submit(following)
        for other in [other for other in self._batches if other not in (number, following)]:
            self._batches.pop(other).cancel()
        return batch.result()

    def ask(self, question: Callable[[], str]) -> str:
        """Answered by the thread that reads, which alone uses what it reads with."""
        return self._thread.submit(question).result()

    def close(self) -> None:
        """Waits for a read that has begun; no thread is left."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _submit(self, number: int) -> Future[Batch]:
        if number not in self._batches:
            self._batches[number] = self._thread.submit(self._read, number)
        return self._batches[number]
