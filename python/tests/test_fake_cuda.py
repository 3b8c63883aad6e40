"""A made-up CUDA device: whole steps in orders that a GPU could take, and what a plan orders."""

from __future__ import annotations

from pathlib import Path

import pytest

from fpdt.devices import cuda
from fpdt.plan import load_plan
from fpdt.testing.fake_cuda.mutants import device_mutants
from fpdt.testing.fake_cuda.mutate import judge, sample, stale_equivalents
from fpdt.testing.fake_cuda.targets import TARGETS
from fpdt.testing.fake_cuda.watch import OrderError, watch
from tests.conftest import Probes
from tests.fake_cuda_plans import CASES, PlanOf
from tests.planned import write_data
from tests.rounds import core, full

SEEDS = [1, 2]


@pytest.mark.parametrize("name", core(CASES, ("segments of 2, a file", "documents, a file")))
def test_steps_are_equal_to_those_of_the_cpu_in_any_order(
    name: str, probes: Probes, fake_cuda_plan: PlanOf, tmp_path: Path
) -> None:
    answer = probes.run(
        kind="fakeCuda",
        plan=fake_cuda_plan(name),
        data=write_data(tmp_path),
        steps=2,
        worldSize=CASES[name].num_ranks,
        seeds=SEEDS,
        dumpGrads=tmp_path / "gradients",
        options={"poison": False, "disk_folder": str(tmp_path)},
        **({"documents": 5} if CASES[name].packing else {}),
    )
    assert "failed" not in answer, answer["failed"] + answer["traceback"]
    assert len(answer["cpu"]) == 4
    differing = [seed for seed, found in zip(SEEDS, answer["seeds"], strict=True) if found != answer["cpu"]]
    assert differing == [], f"seeds {differing} of {SEEDS}"


@pytest.mark.parametrize(("name", "most"), [("keys on the host", 32), full("auto, bf16", 32), full("two ranks", 6)])
def test_the_host_waits_for_the_device_between_turns_only(
    name: str, most: int, probes: Probes, fake_cuda_plan: PlanOf, tmp_path: Path
) -> None:
    num_ranks = CASES[name].num_ranks
    plan, data = fake_cuda_plan(name), write_data(tmp_path)
    options = {"poison": False}
    answer = probes.run(kind="asynchronous", plan=plan, data=data, steps=3, worldSize=num_ranks, options=options)
    assert "failed" not in answer, answer["failed"] + answer["traceback"]
    assert answer["losses"] == answer["cpu"]
    for step in answer["steps"]:
        # Tokens are counted in the batch as the host has it.
        ours = [wait for wait in step["waits"] if wait[0] == "ours" and not wait[1].startswith("Batch.")]
        bounds = [wait for wait in ours if wait[1] == "CudaRuntime.end_turn: synchronize"]
        assert [wait for wait in ours if wait[2] and wait not in bounds] == []
        # A turn's launch ends when the turn before has ended. Besides: the clock's start and end; tokens, loss and
        # norm; the upstream gradient of the loss.
        assert len(ours) - len(bounds) <= 6
        # Weights of a segment that are gathered anew come in the order of the stream.
        assert [wait for wait in step["waits"] if wait[2] and "Handle.wait" in wait[1]] == []
    # DeepSpeed's, once it has traced the order of modules in the first steps: one a gather where a rank is alone
    # (NoGatherHandle), a reduction's end a micro-step, the norm twice, its timers.
    assert len([wait for wait in step["waits"] if wait[0] == "DeepSpeed's"]) <= most
    assert step["calls"]["record_stream"] > 100 and step["calls"]["wait_stream"] > 10


@pytest.mark.parametrize("name", CASES)
def test_streams_and_events_imply_what_the_plan_orders(name: str, fake_cuda_plan: PlanOf) -> None:
    plan = load_plan(fake_cuda_plan(name))
    for seed in SEEDS:
        assert watch(plan, seed) > 1000


def test_a_broken_runtime_is_found_or_is_known_to_change_nothing(fake_cuda_plan: PlanOf) -> None:
    plans = [load_plan(fake_cuda_plan(name)) for name in ("keys on the host", "windows, ranges, a file")]
    for target in TARGETS:
        target.try_module(target.module, plans)
    mutants = device_mutants()
    assert len(mutants) > 200
    verdicts = [*stale_equivalents(mutants), *(judge(mutant, plans) for mutant in sample(mutants, 2))]
    assert [verdict for verdict in verdicts if verdict["fate"] == "survived"] == []
    assert sum(verdict["fate"] == "changed" for verdict in verdicts) > len(verdicts) / 3


def test_a_missing_fork_is_found_though_no_result_shows_it(
    fake_cuda_plan: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda.CudaRuntime, "_enter", lambda self, call: None)
    with pytest.raises(OrderError, match=r"does not come after what .* had before"):
        watch(load_plan(fake_cuda_plan("keys on the host")), 0)
