"""The CUDA runtime with native copies: the real runtime, engine and back end over a made-up driver and device."""

from __future__ import annotations

import pytest

from fpdt.plan import load_plan
from fpdt.testing.fake_cuda.watch_copies import fallen_back, watch_copies
from tests.fake_cuda_plans import PlanOf


@pytest.mark.parametrize("name", ["keys on the host", "ulysses, ZeRO-1", "two ranks"])
def test_positions_and_events_imply_what_the_plan_orders(name: str, fake_cuda_plan: PlanOf) -> None:
    plan = load_plan(fake_cuda_plan(name))
    for seed in (1, 2):
        assert watch_copies(plan, seed) > 100


@pytest.mark.parametrize(
    "function", ["cuDeviceGet", "cuMemAlloc_v2", "cuMemcpyBatchAsync_v2", "cuStreamWriteValue32_v2"]
)
def test_a_driver_that_fails_leaves_copies_to_events_and_the_run_says_why(
    function: str, fake_cuda_plan: PlanOf
) -> None:
    (remark,) = fallen_back(load_plan(fake_cuda_plan("keys on the host")), function)
    assert remark.startswith("copies are launched from Python, by events, for there are no native ones: ")
    assert "invalid argument, made up" in remark


def test_native_copies_are_told_of(fake_cuda_plan: PlanOf) -> None:
    assert fallen_back(load_plan(fake_cuda_plan("keys on the host")), "") == (
        "copies are launched by native threads; from Python in steps whose ops are timed",
    )
