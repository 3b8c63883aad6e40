"""What every family's code makes inside when it runs is what the planner says, to the byte."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from fpdt.measure.memory import LiveBytes
from fpdt.models.interpreter import LinkedCode
from tests.families import KERNEL_CASES, Built, families, measure_codes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def measured(code: LinkedCode, views: Mapping[str, Tensor]) -> int:
    env = dict(views)
    with torch.no_grad(), LiveBytes() as live, live.scope() as scope:
        code.run(env)
    return scope.peak_bytes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "kernels"), KERNEL_CASES)
def test_each_code_makes_as_many_bytes_as_planned(name: str, dtype: str, kernels: str) -> None:
    model = Built(families(kernels)[name], DTYPES[dtype])
    assert measure_codes(model, measured) == model.family.peaks[dtype]
