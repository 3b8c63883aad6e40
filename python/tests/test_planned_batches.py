"""What a batch must be for the plan it is run by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fpdt.data.batch import Batch
from fpdt.errors import DataError
from fpdt.plan import Plan, load_plan
from fpdt.run.planned_batches import PlannedBatches
from tests.planned import make_plan

ROWS = 96


@pytest.fixture(scope="module")
def packing(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return load_plan(make_plan(tmp_path_factory.mktemp("packing"), packing=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return load_plan(make_plan(tmp_path_factory.mktemp("whole")))


class One:
    """A source with one batch."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def read(self, step: int, micro_step: int) -> Batch:
        return self._batch

    def name(self, step: int, micro_step: int, data_rank: int, position: int | None = None) -> str:
        return "the batch"

    def close(self) -> None:
        """Nothing is open."""


def batch(**changes: Any) -> Batch:
    rows = torch.arange(ROWS)
    return replace(Batch(rows % 8, rows, rows % 8), **changes)


def read(plan: Plan, one: Batch) -> Batch:
    return PlannedBatches(plan, One(one)).read(3, 1)


def test_a_plan_for_packing_always_has_weights(packing: Plan) -> None:
    found = read(packing, batch(document_starts=(0, 40, 41)))
    assert found.weights is not None
    assert found.weights.tolist() == [1.0] * ROWS
    assert found.weight_sum == found.num_valid == ROWS
    weighted = batch(weights=torch.full((ROWS,), 0.5), labels=torch.tensor([-100] * 90 + [1] * 6))
    assert read(packing, weighted).weight_sum == 3.0


def test_a_plan_for_one_document_takes_one(whole: Plan) -> None:
    one = batch()
    assert read(whole, one) is one


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"document_starts": (0, 5)}, "step 3, micro-step 1 has 2 documents, and the plan is for one"),
        ({"weights": torch.ones(ROWS)}, "has loss weights, and the plan has no place for them"),
    ],
)
def test_names_packing_where_a_batch_needs_it(whole: Plan, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(whole, batch(**changes))
    assert "--packing" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"document_starts": ()}, "begin at nothing"),
        ({"document_starts": (1, 5)}, "begin at 1, 5: expected 0 and then rising positions below 96"),
        ({"document_starts": (0, 5, 5)}, "begin at 0, 5, 5"),
        ({"document_starts": (0, 9, 5)}, "begin at 0, 9, 5"),
        ({"document_starts": (0, 96)}, "begin at 0, 96"),
        ({"document_starts": (0, *range(5, 90), 3)}, "begin at 0, 5, 6, 7, 8, 9, 10, 11, .."),
        ({"weights": torch.ones(ROWS - 1)}, r"weights of .*: expected 96 rows of torch.float32, found \[95\]"),
        ({"weights": torch.ones(ROWS, dtype=torch.float64)}, "found .* of torch.float64"),
        ({"labels": torch.ones(ROWS)}, "labels of .*: expected 96 rows of torch.int64"),
        ({"weights": torch.tensor([1.0] * 7 + [float("nan")] * 89)}, "row 7 of .* has the loss weight nan"),
        ({"weights": torch.tensor([1.0] * 90 + [-1.0] * 6)}, "row 90 of .* has the loss weight -1.0"),
    ],
)
def test_refuses_a_batch_that_is_none(packing: Plan, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(packing, batch(**changes))
    assert caught.value.hint
