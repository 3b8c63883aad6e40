"""The batch that comes next is read while a step runs."""

from __future__ import annotations

import threading

import pytest
import torch

from fpdt.data.ahead import ReadAhead
from fpdt.data.batch import Batch
from fpdt.errors import DataError


def batch(number: int) -> Batch:
    return Batch(torch.tensor([number]), torch.tensor([0]), torch.tensor([0]))


class Source:
    """Says which sequences were read; the fifth is broken."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.has_read = {number: threading.Event() for number in range(20)}

    def __call__(self, number: int) -> Batch:
        assert threading.current_thread() is not threading.main_thread()
        self.read.append(number)
        self.has_read[number].set()
        if number == 5:
            raise DataError("line 5 is broken")
        return batch(number)


def test_the_next_one_is_read_unasked_and_none_twice() -> None:
    source = Source()
    ahead = ReadAhead(source, stride=2)
    assert int(ahead.take(0).token_ids) == 0
    assert source.has_read[2].wait(60)
    assert source.read == [0, 2]
    assert int(ahead.take(0).token_ids) == 0
    assert int(ahead.take(2).token_ids) == 2
    assert source.has_read[4].wait(60)
    assert source.read == [0, 2, 4]
    ahead.close()


def test_no_more_than_the_next_one_is_kept() -> None:
    ahead = ReadAhead(batch, stride=1)
    for number in (0, 1, 2, 10, 3):
        assert int(ahead.take(number).token_ids) == number
        assert len(ahead._batches) == 2
    ahead.close()


def test_an_error_arrives_where_its_batch_is_taken_each_time() -> None:
    source = Source()
    ahead = ReadAhead(source, stride=1)
    assert int(ahead.take(4).token_ids) == 4
    assert source.has_read[5].wait(60)
    for _ in range(2):
        with pytest.raises(DataError, match="line 5 is broken"):
            ahead.take(5)
    ahead.close()


def test_no_thread_is_left() -> None:
    before = set(threading.enumerate())
    ahead = ReadAhead(batch, stride=1)
    ahead.take(0)
    started = set(threading.enumerate()) - before
    assert [thread.name for thread in started] == ["fpdt-data_0"]
    ahead.close()
    assert not any(thread.is_alive() for thread in started)
    ReadAhead(batch, stride=1).close()
