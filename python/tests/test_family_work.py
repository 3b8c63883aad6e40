"""What every family's code computes and moves when it runs is what the planner prices."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from fpdt.models.interpreter import LinkedCode
from tests.counted_work import Work, size_of
from tests.families import KERNEL_CASES, ROWS, Built, families, measure_codes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SMALL = 0.03
"""The planner leaves out what has a number for each row or for each column, such as means and weights of norms."""


def counted(code: LinkedCode, views: Mapping[str, Tensor]) -> Work:
    env = dict(views)
    work = Work()
    with torch.no_grad(), work:
        code.run(env)
    return work


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "kernels"), KERNEL_CASES)
def test_each_code_computes_and_moves_what_is_planned(name: str, dtype: str, kernels: str) -> None:
    model = Built(families(kernels)[name], DTYPES[dtype])
    found, planned = measure_codes(model, counted), model.family.work[dtype]
    pairs = [(found["ends"], planned["ends"]), *zip(found["layers"], planned["layers"], strict=True)]
    for works, plans in pairs:
        for code, work in works.items():
            plan = dict(plans[code])
            if code == "head":
                # The loss keeps the result, and no view stores it.
                plan["kernels"] -= 1
                plan["elementBytes"] -= 2 * size_of(model.empty("x"))
            assert (code, work.kernels, work.flops) == (code, plan["kernels"], plan["matmulFlops"])
            # Angles are shared by heads; where there is one, they are as large as what they turn.
            angles = 4 * ROWS * model.head_dim * model.dtype.itemsize
            assert plan["elementBytes"] <= work.num_bytes <= (1 + SMALL) * plan["elementBytes"] + angles, code
