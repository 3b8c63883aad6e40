"""Which documents share a sequence, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpdt.data.order import shuffled
from fpdt.data.packing import WINDOW, Packing, pack

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(LENGTHS, st.integers(50, 120))
def test_every_document_stands_in_one_sequence_and_none_is_too_full(lengths: list[int], capacity: int) -> None:
    packed = pack(np.array(lengths), capacity)
    assert sorted(number for documents in packed for number in documents) == list(range(len(lengths)))
    totals = [sum(lengths[number] for number in documents) for documents in packed]
    assert max(totals) <= capacity
    # Best fit opens a sequence only where nothing fits: no two of them could be one.
    assert all(first + second > capacity for i, first in enumerate(totals) for second in totals[i + 1 :])
    fewest = -(-sum(lengths) // capacity)
    assert len(packed) <= max(2 * fewest, 1)


def test_documents_of_an_eighth_more_or_less_leave_few_rows_empty() -> None:
    lengths = np.random.default_rng(0).integers(80, 121, size=WINDOW)
    packed = pack(lengths, 800)
    assert lengths.sum() / (len(packed) * 800) > 0.95


def test_documents_that_fit_exactly_fill_their_sequences() -> None:
    assert pack(np.array([3, 5, 5, 3, 4, 4]), 8) == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("seed", [None, 3])
def test_an_epoch_has_every_document_once_and_the_next_another_order(seed: int | None) -> None:
    lengths = np.random.default_rng(1).integers(1, 65, size=2 * WINDOW + 100)
    packing = Packing(lengths, 64, seed)
    epochs: list[list[int]] = []
    number = 0
    for _ in range(2):
        seen: list[int] = []
        while len(seen) < len(lengths):
            seen += packing.documents(number).tolist()
            number += 1
        assert sorted(seen) == list(range(len(lengths)))
        epochs.append(seen)
    assert (epochs[0] == epochs[1]) == (seed is None)


def test_a_sequence_is_a_function_of_seed_and_number_alone() -> None:
    lengths = np.random.default_rng(2).integers(1, 65, size=WINDOW + 50)
    forward, backward = Packing(lengths, 64, 5), Packing(lengths, 64, 5)
    numbers = range(0, 9000, 500)
    found = {number: forward.documents(number).tolist() for number in numbers}
    assert {number: backward.documents(number).tolist() for number in reversed(numbers)} == found
    assert [Packing(lengths, 64, 6).documents(number).tolist() for number in numbers] != list(found.values())


def test_the_order_is_that_of_whole_numbers_in_python() -> None:
    """A run that goes on elsewhere, with another numpy, must find the same order."""
    mask, golden = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def finalize(key: int) -> int:
        key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9 & mask
        key = (key ^ (key >> 27)) * 0x94D049BB133111EB & mask
        return key ^ (key >> 31)

    for seed, epoch in ((0, 0), (7, 3), (2**40, 1)):
        start = finalize((finalize((seed + 1) * golden & mask) + epoch * golden) & mask)
        keys = [finalize((number * golden + start) & mask) for number in range(300)]
        assert shuffled(300, seed, epoch).tolist() == sorted(range(300), key=lambda number: keys[number])


def test_the_first_sequence_of_millions_of_documents_needs_one_window() -> None:
    packing = Packing(np.full(3_000_000, 10), 80, 0)
    assert len(packing.documents(0)) == 8
    assert packing._ends == [0, WINDOW // 8]
