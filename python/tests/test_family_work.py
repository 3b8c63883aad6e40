"""What every family's code computes and moves when it runs is what the planner prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fpdt.models.interpreter import LinkedCode
from tests.families import CASES, ROWS, Built, families, measure_codes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PRODUCTS = {"mm": 2, "addmm": 3, "addmm_": 3}
"""And which of an operator's arguments are factors, from the last."""
SMALL = 0.03
"""The planner leaves out what has a number for each row or for each column, such as means and weights of norms."""


class Work(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts kernels, FLOPs of products and bytes of all others: tensors as large as the largest, read or written."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels, self.flops, self.num_bytes = 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.is_view or name in ("empty", "empty_like", "detach", "_unsafe_view", "_reshape_alias"):
            return out
        self.kernels += 2 if _forms_weights_of_norm(name, args) else 1
        if name in PRODUCTS:
            left, right = [one for one in args if isinstance(one, Tensor)][-2:]
            self.flops += 2 * left.shape[0] * left.shape[1] * right.shape[1]
        else:
            self.num_bytes += _bytes(name, args, kwargs or {}, out)
        return out


def _bytes(name: str, args: Any, kwargs: Mapping[str, Any], out: Any) -> int:
    written = [one for one in tree_leaves(out) if isinstance(one, Tensor)]
    if name == "embedding":
        return 2 * _size(written[0])
    if name == "index_add_":
        return 3 * _size(args[3])
    is_overwritten = name in ("copy_", "zero_", "fill_")
    read = [one for one in tree_leaves(args[1:] if is_overwritten else args) if isinstance(one, Tensor)]
    both = [*read, *written]
    largest = max(one.numel() for one in both)
    # The gradients of a norm's weights are a kernel of their own, which reads what the input's does.
    again = read[:2] if _forms_weights_of_norm(name, args) else []
    return sum(_size(one) for one in [*both, *again] if one.numel() == largest)


def _forms_weights_of_norm(name: str, args: Any) -> bool:
    return name == "native_layer_norm_backward" and any(args[-1][1:])


def _size(one: Tensor) -> int:
    return one.numel() * one.element_size()


def counted(code: LinkedCode, views: Mapping[str, Tensor]) -> Work:
    env = dict(views)
    work = Work()
    with torch.no_grad(), work:
        code.run(env)
    return work


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_each_code_computes_and_moves_what_is_planned(name: str, dtype: str) -> None:
    model = Built(families()[name], DTYPES[dtype])
    found, planned = measure_codes(model, counted), model.family.work[dtype]
    pairs = [(found["ends"], planned["ends"]), *zip(found["layers"], planned["layers"], strict=True)]
    for works, plans in pairs:
        for code, work in works.items():
            plan = dict(plans[code])
            if code == "head":
                # The loss keeps the result, and no view stores it.
                plan["kernels"] -= 1
                plan["elementBytes"] -= 2 * _size(model.empty("x"))
            assert (code, work.kernels, work.flops) == (code, plan["kernels"], plan["matmulFlops"])
            # Angles are shared by heads; where there is one, they are as large as what they turn.
            angles = 4 * ROWS * model.head_dim * model.dtype.itemsize
            assert plan["elementBytes"] <= work.num_bytes <= (1 + SMALL) * plan["elementBytes"] + angles, code
