"""Kernels beside attention that a plan names, and the one that weight gradients of layers and of lm_head share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic.alias_generators import to_camel
from torch import Tensor

from fpdt.blocks import blocks
from fpdt.errors import PlanError
from fpdt.plan.nouns import FusedKernels

FUSED_KERNELS: Mapping[str, tuple[str, ...]] = {
    "loss": ("inplace",),
    "merge": ("lerp",),
    "norm": ("vectornorm",),
    "rope": ("addcmul",),
    "elementwise": ("inplace",),
    "weight_gradient": ("blocks", "addmm"),
}
"""Those of each kind that are not plain."""


def check_fused(kernels: FusedKernels) -> None:
    """Raises PlanError for a kernel that this worker does not have."""
    names = {to_camel(kind): of_kind for kind, of_kind in FUSED_KERNELS.items()}
    named = {to_camel(kind): getattr(kernels, kind) for kind in FUSED_KERNELS} | (kernels.model_extra or {})
    for kind, name in named.items():
        known = ["plain", *names.get(kind, ())]
        if name not in known:
            raise PlanError(
                f"the plan names the kernel {name!r} for {kind}, this worker has {', '.join(known)}", "plan again"
            )


def require_fused(kernels: FusedKernels, device: torch.device) -> None:
    """Raises PlanError for a kernel that this PyTorch does not have on the device."""
    if kernels.weight_gradient == "addmm" and not _has(torch.ops.aten.addmm, "dtype_out", device):
        raise PlanError(
            f"the plan names the kernel 'addmm' for weightGradient, which PyTorch {torch.__version__} does not have on "
            f"{device.type}",
            "plan with --kernels weightGradient=blocks, or install PyTorch 2.11 or newer for CUDA",
        )


def _has(op: Any, overload: str, device: torch.device) -> bool:
    """Whether some version of an aten op runs there."""
    if overload not in op.overloads():
        return False
    name = f"{op._qualified_op_name}.{overload}"
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, device.type.upper()))


def add_product(total: Tensor, left: Tensor, right: Tensor, kernels: FusedKernels) -> None:
    """total += left @ right; without a temporary where the dtypes agree, else by the kernel `weight_gradient`."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif kernels.weight_gradient == "addmm":
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    elif kernels.weight_gradient == "blocks":
        for rows in blocks(total.shape[0], right.shape[1] * right.element_size(), kernels.block_bytes):
            total[rows].add_(left[rows] @ right)
    else:
        total.add_(left @ right)
