"""The CUDA runtime with native copies: the real runtime, engine and back end over a made-up driver and device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fpdt.copies import (
    CopiesUnavailableError,
    CopyEngine,
    CopyEngineError,
    LoweredSection,
    driver_functions,
    lower,
)
from fpdt.devices import copy_calls, create_runtime, cuda_copies
from fpdt.errors import FpdtError
from fpdt.plan import load_plan
from fpdt.testing.fake_cuda.oracle import OrderError
from fpdt.testing.fake_cuda.watch_copies import fallen_back, watch_copies
from tests.conftest import Probes
from tests.fake_cuda_plans import PlanOf
from tests.planned import write_data


@pytest.mark.parametrize(("name", "seed"), [("keys on the host", 1), ("ulysses, ZeRO-1", 2)])
def test_positions_and_events_imply_what_the_plan_orders(name: str, seed: int, fake_cuda_plan: PlanOf) -> None:
    assert watch_copies(load_plan(fake_cuda_plan(name)), seed) > 100


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


def test_a_step_with_files_is_equal_to_that_of_the_cpu(probes: Probes, fake_cuda_plan: PlanOf, tmp_path: Path) -> None:
    answer = probes.run(
        kind="fakeCuda",
        plan=fake_cuda_plan("segments of 2, a file"),
        data=write_data(tmp_path),
        steps=2,
        worldSize=1,
        seeds=[1],
        native=True,
        dumpGrads=tmp_path / "gradients",
        options={"poison": False, "disk_folder": str(tmp_path)},
    )
    assert "failed" not in answer, answer["failed"] + answer["traceback"]
    assert len(answer["cpu"]) == 4
    assert answer["seeds"] == [answer["cpu"]]


def test_waits_and_signals_that_are_left_out_or_wrong_are_noticed(
    fake_cuda_plan: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's, the engine's, and that of a call's entry."""
    plan = load_plan(fake_cuda_plan("keys on the host"))
    survived = []
    for mutant, (owner, name, value) in MUTANTS.items():
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            try:
                watch_copies(plan, 1)
            except (OrderError, CopyEngineError):
                continue
            survived.append(mutant)
    assert survived == []


def earlier(section: LoweredSection, by: int) -> LoweredSection:
    """Where the first copy that waits for Python's waits for a position `by` earlier; 0 or less is none."""
    waits = section.waits.copy()
    of_python = [row for row in range(len(waits)) if waits[row, 0] in cuda_copies.PYTHONS and waits[row, 1] > by]
    if of_python:
        waits[of_python[0], 1] -= by
    return dataclasses.replace(section, waits=waits)


def no_waits(section: LoweredSection) -> dict[str, Any]:
    return {"ops": section.ops * [1, 1, 1, 0, 1], "waits": section.waits[:0]}


def lowering(change: Any) -> Any:
    return copy_calls, "lower", lambda *arguments: change(lower(*arguments))


def without(name: str, number: int) -> Any:
    """A CopyEngine of which each so many'th call of `name` does nothing."""
    original, calls = getattr(CopyEngine, name), dict[int, int]()

    def dropping(self: CopyEngine, *arguments: Any) -> None:
        calls[id(self)] = calls.get(id(self), 0) + 1
        if calls[id(self)] % number:
            original(self, *arguments)

    return CopyEngine, "__init__", _replacing(name, dropping)


def _replacing(name: str, method: Any) -> Any:
    made = CopyEngine.__init__

    def init(self: CopyEngine, *arguments: Any) -> None:
        made(self, *arguments)
        setattr(self, name, method.__get__(self))

    return init


MUTANTS = {
    "Python does not wait for a copy": without("wait", 5),
    "Python does not say that an op is launched": without("write", 5),
    "copies do not wait": lowering(lambda section: dataclasses.replace(section, **no_waits(section))),
    "a copy waits for the op before": lowering(lambda section: earlier(section, 1)),
    "Python waits for the copy before": lowering(
        lambda section: dataclasses.replace(
            section,
            waits_of={
                op: tuple(wait._replace(position=wait.position - 1) for wait in waits)
                for op, waits in section.waits_of.items()
            },
        )
    ),
    "no op of Python's signals": lowering(lambda section: dataclasses.replace(section, signalled=frozenset())),
    "calls are not entered": (cuda_copies.CopyingCudaRuntime, "_enter_natively", lambda self, call, bases: None),
}


def test_a_copy_mode_of_another_device_is_refused() -> None:
    with pytest.raises(FpdtError, match="copy mode 'native' is not of cpu") as caught:
        create_runtime("cpu", [], copy_mode="native")
    assert caught.value.hint == "give eager, lazy, random, threads, or leave --copy-mode out"
    with pytest.raises(FpdtError, match="copy mode 'lazy' is not of cuda"):
        create_runtime("cuda", [], copy_mode="lazy")


def test_a_driver_that_is_not_there_or_too_old_is_told_by_name() -> None:
    with pytest.raises(CopiesUnavailableError, match=r"cannot load libcuda\.so\.none") as caught:
        driver_functions("libcuda.so.none")
    assert caught.value.hint == "install NVIDIA's driver; AMD's GPUs copy by events"
    with pytest.raises(CopiesUnavailableError, match=r"the CUDA driver has no cuDeviceGet, .*cuMemcpyBatchAsync_v2"):
        driver_functions("libc.so.6")
