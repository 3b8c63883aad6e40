"""The kernels that a plan names: obeyed, or refused before anything runs."""

from __future__ import annotations

import numpy as np
import torch
from pydantic.alias_generators import to_camel

from fpdt.attention import CAPABILITIES, AttentionConfig, backend_named
from fpdt.attention.base import MaskName
from fpdt.attention.self_test import Work, check_kernels
from fpdt.errors import PlanError
from fpdt.models.base import Kernels
from fpdt.models.fused import FUSED_KERNELS, check_fused, require_fused
from fpdt.plan import Plan
from fpdt.plan.sections import Array
from fpdt.run.arena import TORCH_DTYPES
from fpdt.run.fused_self_test import check_fused_kernels

_TILES = {"cpu": 16, "cuda": 128}
_HEADS = 2
"""Key/value heads of a test, at most, with all query heads of each."""
_MOST_LEFT_OVER = 2
_UNMASKED: frozenset[tuple[MaskName, int | None]] = frozenset({("full", None), ("square", None)})


def plan_kernels(plan: Plan) -> Kernels:
    """Raises PlanError for a kernel that this worker does not have, or that cannot do a mask of the plan."""
    names = plan.header.kernels
    for kind, name in (("attn", names.attn), ("attnBwd", names.attn_bwd)):
        if name not in CAPABILITIES:
            known = ", ".join(CAPABILITIES)
            raise PlanError(f"the plan names the kernel {name!r} for {kind}, this worker has {known}", "plan again")
        for mask in sorted({mask for mask, _ in masks_of(plan, kind)} - CAPABILITIES[name]):
            able = [other for other, masks in CAPABILITIES.items() if mask in masks]
            raise PlanError(
                f"the plan names the kernel {name!r} for {kind}, which cannot do its mask '{mask}'",
                f"plan with a kernel that can: {', '.join(able)}",
            )
    check_fused(names.fused)
    return Kernels(backend_named(names.attn), backend_named(names.attn_bwd), names.fused)


def kernel_names(plan: Plan) -> dict[str, str]:
    """Attention's, and of those beside it the ones that are not plain, by the plan's names of kinds."""
    names = plan.header.kernels
    fused = {to_camel(kind): str(getattr(names.fused, kind)) for kind in FUSED_KERNELS}
    beside = {kind: name for kind, name in fused.items() if name != "plain"}
    return {"attn": names.attn, "attnBwd": names.attn_bwd, **beside}


def check_plan_kernels(plan: Plan, kernels: Kernels, device: torch.device) -> tuple[str, ...]:
    """Makes the kernels ready and holds them against their references on a few rows of what the plan asks for.

    Lines that say so. Raises AttentionError, PlanError or KernelError for a kernel that is not here, or that is wrong.
    """
    kernels.attn.require(device)
    kernels.attn_bwd.require(device)
    require_fused(kernels.fused, device)
    work = work_of(plan, _TILES[device.type])
    attention = check_kernels(kernels.attn, kernels.attn_bwd, work, device)
    beside = check_fused_kernels(plan, kernels.fused, TORCH_DTYPES[plan.run["dtype"]], device)
    return (attention,) if beside is None else (attention, beside)


def work_of(plan: Plan, tile: int) -> Work:
    """Heads as a rank has them in the plan's views, with fewer groups.

    Documents have any number of rows, and leave no window, or fewer keys before their queries, of some ops.
    """
    rows, columns = _ops(plan, "attn"), plan.columns
    first_view = columns.views_at[int(np.argmax(rows))]
    q, k = (plan.buffers[columns.access_buffer[columns.view[first_view + i]]] for i in range(2))
    group, kv_heads = q.shape[1] // k.shape[1], min(_HEADS, k.shape[1])
    numbers = [code.attention for code in plan.code.classes]
    return Work(
        heads=group * kv_heads,
        kv_heads=kv_heads,
        head_dim=q.shape[2],
        dtype=TORCH_DTYPES[q.dtype],
        configs=frozenset(AttentionConfig(scale=one.scale, softcap=one.softcap) for one in numbers),
        masks=frozenset(masks_of(plan, "attn") | masks_of(plan, "attnBwd") | (_UNMASKED if plan.packing else set())),
        tile=tile,
        left_over=_left_over(columns.kv[rows], tile) | (_rows_of_documents(tile) if plan.packing else set()),
    )


def masks_of(plan: Plan, kind: str) -> set[tuple[MaskName, int | None]]:
    """Masks of the ops of a kind, a window with its tokens; causal is `square` or, with more keys, `rectangle`."""
    columns, attributes = plan.columns, plan.header.attributes
    mine = _ops(plan, kind)
    is_square = columns.kv[mine, 0] == columns.tokens[mine, 0]
    found = set(zip(columns.attribute[mine].tolist(), is_square.tolist(), strict=True))
    names: set[tuple[MaskName, int | None]] = set()
    for number, square in found:
        mask = attributes[number].mask
        assert mask is not None  # checked when the plan was decoded
        names.add((("square" if square else "rectangle") if mask.kind == "causal" else mask.kind, mask.window))
    return names


def _ops(plan: Plan, kind: str) -> Array:
    """Which rows of the columns are ops of a kind."""
    return np.array([row.name == kind for row in plan.header.op_kinds], bool)[plan.columns.kind]


def _rows_of_documents(tile: int) -> set[int]:
    """Half a tile, where kernels are known to fail, and a single row."""
    return {1, tile // 2}


def _left_over(keys: Array, tile: int) -> frozenset[int]:
    """What numbers of keys leave over whole tiles: half a tile first, where kernels are known to fail, then most."""
    found = sorted(set(((keys[:, 1] - keys[:, 0]) % tile).tolist()), key=lambda rest: (rest != tile // 2, -rest))
    return frozenset(found[:_MOST_LEFT_OVER])
