"""CUDA's products of a half dtype into fp32, `aten::addmm.dtype_out`, on the CPU and on tensors without data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

OP = "aten::addmm.dtype_out"


@contextmanager
def half_products() -> Iterator[None]:
    """Inside it the op runs here, and refuses what `_addmm_dtype_out_cuda` does (aten/native/cuda/Blas.cpp)."""
    library: Any = Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    try:
        library.impl("addmm.dtype_out", _add_product, "CPU")
        if not torch._C._dispatch_has_kernel_for_dispatch_key(OP, "Meta"):
            library.impl("addmm.dtype_out", _check, "Meta")
        yield
    finally:
        library._destroy()


def _add_product(
    total: Tensor,
    left: Tensor,
    right: Tensor,
    out_dtype: torch.dtype,
    *,
    beta: float = 1,
    alpha: float = 1,
    out: Tensor,
) -> Tensor:
    """Summed in fp32, as tensor cores do."""
    _check(total, left, right, out_dtype, out=out)
    product = (left.float() @ right.float()).to(out_dtype)
    return out.copy_(total.mul(beta).add(product, alpha=alpha))


def _check(
    total: Tensor, left: Tensor, right: Tensor, out_dtype: torch.dtype, *, out: Tensor, **_factors: float
) -> Tensor:
    """Raises RuntimeError where the kernel of CUDA would."""
    if left.dim() != 2 or right.dim() != 2 or left.shape[1] != right.shape[0]:
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({left.shape} and {right.shape})")
    if left.dtype != right.dtype:
        raise RuntimeError(f"mat1 and mat2 must have the same dtype, but got {left.dtype} and {right.dtype}")
    if out_dtype != left.dtype and (out_dtype != torch.float32 or left.dtype not in (torch.bfloat16, torch.float16)):
        raise RuntimeError("out_dtype must be the same as input dtype or fp32 for fp16/bf16 inputs")
    if out.dtype != out_dtype or total.dtype not in (out_dtype, left.dtype):
        raise RuntimeError("self dtype must match either out_dtype or mat1 dtype")
    if out.shape != (left.shape[0], right.shape[1]):
        raise RuntimeError(f"out has shape {out.shape}")
    return out
