"""The attention kernels that a plan names: obeyed, or refused before anything runs."""

from __future__ import annotations

import numpy as np

from fpdt.attention import CAPABILITIES, backend_named
from fpdt.errors import PlanError
from fpdt.models.base import Kernels
from fpdt.plan import Plan


def plan_kernels(plan: Plan) -> Kernels:
    """Raises PlanError for a kernel that this worker does not have, or that cannot do a mask of the plan."""
    names = plan.header.kernels
    for kind, name in (("attn", names.attn), ("attnBwd", names.attn_bwd)):
        if name not in CAPABILITIES:
            known = ", ".join(CAPABILITIES)
            raise PlanError(f"the plan names the kernel {name!r} for {kind}, this worker has {known}", "plan again")
        for mask in sorted(masks_of(plan, kind) - CAPABILITIES[name]):
            able = [other for other, masks in CAPABILITIES.items() if mask in masks]
            raise PlanError(
                f"the plan names the kernel {name!r} for {kind}, which cannot do its mask '{mask}'",
                f"plan with a kernel that can: {', '.join(able)}",
            )
    return Kernels(backend_named(names.attn), backend_named(names.attn_bwd))


def masks_of(plan: Plan, kind: str) -> set[str]:
    """Names of the masks that ops of a kind ask for; causal is `square` or, with more keys, `rectangle`."""
    columns, attributes = plan.columns, plan.header.attributes
    kinds = np.array([row.name == kind for row in plan.header.op_kinds], bool)
    mine = kinds[columns.kind]
    is_square = columns.kv[mine, 0] == columns.tokens[mine, 0]
    found = set(zip(columns.attribute[mine].tolist(), is_square.tolist(), strict=True))
    names = set()
    for number, square in found:
        mask = attributes[number].mask
        assert mask is not None  # checked when the plan was decoded
        names.add(("square" if square else "rectangle") if mask.kind == "causal" else mask.kind)
    return names
