"""Counts what PyTorch's operators compute and move, to hold it against what the planner prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PRODUCTS = {"mm": 2, "addmm": 3, "addmm_": 3}
"""And which of an operator's arguments are factors, from the last."""


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
        return 2 * size_of(written[0])
    if name == "index_add_":
        return 3 * size_of(args[3])
    is_overwritten = name in ("copy_", "zero_", "fill_")
    read = [one for one in tree_leaves(args[1:] if is_overwritten else args) if isinstance(one, Tensor)]
    both = [*read, *written]
    largest = max(one.numel() for one in both)
    # The gradients of a norm's weights are a kernel of their own, which reads what the input's does.
    again = read[:2] if _forms_weights_of_norm(name, args) else []
    return sum(size_of(one) for one in [*both, *again] if one.numel() == largest)


def _forms_weights_of_norm(name: str, args: Any) -> bool:
    return name == "native_layer_norm_backward" and any(args[-1][1:])


def size_of(one: Tensor) -> int:
    return one.numel() * one.element_size()
