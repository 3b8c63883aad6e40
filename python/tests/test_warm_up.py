"""Ops that run before there are arenas: every kind that has kernels, on whole weights, and nothing is left of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fpdt.attention import backend_named
from fpdt.measure.memory import LiveBytes
from fpdt.models import Kernels
from fpdt.models.plan_model import plan_model
from fpdt.ops import HANDLERS
from fpdt.plan import OP_KINDS, load_plan
from fpdt.run import warm_up
from fpdt.run.context import OpContext
from fpdt.run.stream import stream
from tests.fake_cuda_plans import CASES, plan_of

CPU = torch.device("cpu")
REFERENCE = Kernels(backend_named("reference"), backend_named("reference"))


@pytest.mark.parametrize("name", ["keys on the host", "windows, ranges, a file", "auto, bf16"])
def test_every_kind_of_op_runs_once_and_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without an engine weights are whole; what ZeRO-3 shards every run with it gathers.
    plan = load_plan(plan_of(replace(CASES[name], zero={"stage": 1}), tmp_path))
    ran: list[tuple[str, int | None]] = []

    def noting(kind: str) -> Any:
        def handler(ctx: OpContext, *views: Any) -> None:
            ran.append((kind, ctx.frame.layer_number))
            HANDLERS[kind](ctx, *views)

        return handler

    monkeypatch.setattr(warm_up, "HANDLERS", {kind: noting(kind) for kind in HANDLERS})
    with LiveBytes() as live:
        streamed = stream(plan_model(plan, None), plan, REFERENCE, CPU)
        weights = [weight.detach().clone() for weight in streamed.model.parameters()]
        before = live.live_bytes
        assert warm_up.warm_up_ops(plan, streamed, CPU) is None
        assert live.live_bytes == before
    assert all(map(torch.equal, weights, streamed.model.parameters()))
    assert all(weight.grad is None for weight in streamed.model.parameters())
    used = {section.kinds[number].name for section in plan.sections.values() for number in kinds_of(section)}
    assert {kind for kind, _ in ran} == used & warm_up.KINDS
    assert {kind for kind in used - warm_up.KINDS if OP_KINDS[kind].stream == "compute"} <= {
        *warm_up.ELSEWHERE,
        "optimizerStep",
    }
    # Of layers that differ one each.
    classes = {plan.code.class_of[layer] for _, layer in ran if layer is not None}
    assert classes == set(plan.code.class_of)


def kinds_of(section: Any) -> set[int]:
    return set(section.columns.kind[section.rows].tolist())
