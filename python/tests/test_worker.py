"""Whole runs of the worker as separate processes, against the reference."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from fpdt.plan import load_plan
from fpdt.run.gradients import gradient_file
from fpdt.testing.reference import run_reference
from fpdt.worker import main, make_parser, read_plan_file
from tests.hand_plan import HandPlan
from tests.planned import ROOT, ZERO_3, Finished, run_ranks, write_data
from tests.rounds import full


def deepspeed(
    zero: Mapping[str, Any], steps: int = 1, bf16: bool = False, fp16: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": steps,
        "gradient_clipping": 1.0,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
        "zero_optimization": dict(zero),
        **({"bf16": {"enabled": True}} if bf16 else {}),
        **({} if fp16 is None else {"fp16": dict(fp16)}),
    }


def hand_plan(
    folder: Path, zero: Mapping[str, Any], *, steps: int = 1, fp16: Mapping[str, Any] | None = None, **options: Any
) -> Path:
    config = deepspeed(zero, steps, bf16=options.get("dtype") == "bfloat16", fp16=fp16)
    return HandPlan(config, accumulation_steps=steps, **options).write(folder / "plan.json")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A plan for 2 ranks under ZeRO-3 with segments of two layers and a padded sequence, and its data."""
    folder = tmp_path_factory.mktemp("run")
    plan = hand_plan(folder, ZERO_3, steps=2, num_ranks=2, seq_len=93, rebuild=True, tiles=3)
    return plan, write_data(folder)


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("run")
    return hand_plan(folder, {"stage": 1}), write_data(folder)


def worst_error(left: Path, right: Path, step: int) -> float:
    ours, theirs = load_file(gradient_file(left, step)), load_file(gradient_file(right, step))
    assert ours.keys() == theirs.keys()
    errors = [((ours[name].double() - grad.double()).norm() / grad.double().norm()) for name, grad in theirs.items()]
    return max(float(error) for error in errors)


def check(finished: list[Finished]) -> list[dict[str, Any]]:
    for rank, one in enumerate(finished):
        assert one.code == 0, f"rank {rank}:\n{one.err}"
    return finished[0].steps


def test_two_ranks_train_as_the_unsharded_model_does(two_ranks: tuple[Path, Path], tmp_path: Path) -> None:
    plan, data = two_ranks
    run = load_plan(plan).run
    assert (run["seqLen"], run["paddedSeqLen"]) == (93, 96)
    options = ("--plan", str(plan), "--data", str(data), "--dump-grads", str(tmp_path / "run"), "--poison")
    steps = check(run_ranks(2, *options, "--copy-mode", "random", "--seed", "5"))
    losses = run_reference(plan, data, 2, "float64", tmp_path / "float64")
    run_reference(plan, data, 2, "float32", tmp_path / "float32")
    assert [step["loss"] for step in steps] == pytest.approx(losses, rel=1e-6)
    for step in range(2):
        own_error = worst_error(tmp_path / "float32", tmp_path / "float64", step)
        assert worst_error(tmp_path / "run", tmp_path / "float64", step) <= 4 * max(own_error, 1e-7)


def test_a_step_reports_what_was_measured(two_ranks: tuple[Path, Path]) -> None:
    plan, data = two_ranks
    first, second = run_ranks(2, "--plan", str(plan), "--data", str(data), "--steps", "1")
    (step,) = check([first, second])
    assert second.steps == []
    assert step["num_tokens"] == 93 * 2
    assert step["copied_bytes"] == dict.fromkeys(("h2d", "d2h", "read", "write"), 0)
    kinds = {"loadBatch", "gather", "release", "reduce", "optimizerStep", "attn", "emitGrads", "toHeads"}
    assert kinds <= step["by_kind"].keys()
    assert step["by_kind"]["loadBatch"]["count"] == 2
    assert sum(kind["seconds"] for kind in step["by_kind"].values()) <= step["seconds"]
    assert 0 < step["idle_seconds"] < step["seconds"]
    pools = {pool.name: pool.bytes for pool in load_plan(plan).header.pools}
    assert step["memory_measured"] and step["ops_timed"]
    assert step["pool_bytes"].keys() == pools.keys()
    assert step["pool_bytes"]["hbm"] > pools["hbm"] // 2
    assert step["pool_bytes"]["host"] == step["pool_bytes"]["disk"] == 0


def test_bfloat16_without_zero_takes_full_first_steps(tmp_path: Path) -> None:
    plan, data = hand_plan(tmp_path, {"stage": 0}, dtype="bfloat16"), write_data(tmp_path)
    steps = check(run_ranks(1, "--plan", str(plan), "--data", str(data)))
    losses = run_reference(plan, data, 2, "bfloat16")
    drop = losses[0] - losses[1]
    assert steps[0]["loss"] - steps[1]["loss"] == pytest.approx(drop, rel=0.02)


ZERO_VARIANTS: list[tuple[dict[str, Any], int]] = [
    ({"stage": 0}, 2),
    ({"stage": 1}, 1),
    ({"stage": 2}, 2),
    (dict(ZERO_3), 2),
    ({**ZERO_3, "stage3_prefetch_bucket_size": 10**6}, 2),
    ({**ZERO_3, "stage3_prefetch_bucket_size": 10**6, "stage3_max_live_parameters": 10**6}, 1),
]


@pytest.mark.parametrize(
    ("zero", "num_ranks", "tied"),
    [
        (zero, num_ranks, tied) if tied is (number % 2 == 0) and number > 3 else full(zero, num_ranks, tied)
        for number, (zero, num_ranks) in enumerate(ZERO_VARIANTS)
        for tied in (False, True)
    ],
)
def test_zero_variants_dump_the_same_gradients(
    zero: dict[str, Any], num_ranks: int, tied: bool, tmp_path: Path
) -> None:
    """Of a tied weight too: the head adds to the embedding's region, which alone hands it over."""
    plan = hand_plan(tmp_path, zero, num_ranks=num_ranks, tied=tied, rebuild=True)
    data = write_data(tmp_path)
    options = ("--plan", str(plan), "--data", str(data), "--dump-grads", str(tmp_path / "run"), "--poison")
    check(run_ranks(num_ranks, *options))
    run_reference(plan, data, 2, "float64", tmp_path / "reference")
    assert worst_error(tmp_path / "run", tmp_path / "reference", 0) < 1e-5
    assert worst_error(tmp_path / "run", tmp_path / "reference", 1) < 1e-4


def test_traces_and_records_are_of_the_steps_that_were_asked_for(one_rank: tuple[Path, Path], tmp_path: Path) -> None:
    plan, data = one_rank
    options = ("--plan", str(plan), "--data", str(data), "--trace-steps", "1", "--trace-folder", str(tmp_path))
    steps = check(run_ranks(1, *options, "--record-layers", "1"))
    (trace,) = tmp_path.iterdir()
    assert trace.name == "trace-step000001-rank0.json"
    events = json.loads(trace.read_text())["traceEvents"]
    ops = [event for event in events if "cat" in event]
    counts = {kind: item["count"] for kind, item in steps[1]["by_kind"].items()}
    spans = {"gather", "release", "reduce", "optimizerStep"}
    assert len(ops) == sum(count for kind, count in counts.items() if kind not in spans)
    assert {event["args"]["section"] for event in ops} >= {"layerForward", "layerBackward", "lossForward"}


def test_a_stand_alone_run_saves_and_goes_on(one_rank: tuple[Path, Path], tmp_path: Path) -> None:
    plan, data = one_rank
    options = ("--plan", str(plan), "--data", str(data), "--checkpoint", str(tmp_path), "--resume", "auto", "--steps")
    assert [step["step"] for step in check(run_ranks(1, *options, "1"))] == [0]
    assert [step["step"] for step in check(run_ranks(1, *options, "2"))] == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "step-00000001", "step-00000002"]


def test_a_failing_rank_says_why_and_ends_with_1(one_rank: tuple[Path, Path]) -> None:
    plan, data = one_rank
    options = ("--plan", str(plan), "--data", str(data))
    (failed,) = run_ranks(1, *options, environment={"FPDT_FAULT": "raise:0:1"})
    assert (failed.code, len(failed.steps)) == (1, 1)
    assert "rank 0 was asked to fail in step 1" in failed.err
    (killed,) = run_ranks(1, *options, environment={"FPDT_FAULT": "kill:0:0"})
    assert killed.code == -9


def test_a_wrong_attention_kernel_ends_a_run_before_it_trains(one_rank: tuple[Path, Path]) -> None:
    """A right one is told in a line of rank 0."""
    plan, data = one_rank
    options = ("--plan", str(plan), "--data", str(data), "--steps", "1")
    (right,) = run_ranks(1, *options)
    assert right.code == 0 and "attention kernel cpu_flash on cpu agrees with the reference" in right.err
    (wrong,) = run_ranks(1, *options, environment={"FPDT_FAULT": "scale:1.1"})
    assert wrong.code == 1 and not wrong.steps
    assert "attention kernel cpu_flash on cpu is wrong: o under the mask" in wrong.err
    assert "--attention reference" in wrong.err


def test_ranks_with_different_plans_stop_before_the_first_step(two_ranks: tuple[Path, Path], tmp_path: Path) -> None:
    plan, data = two_ranks
    other = hand_plan(tmp_path, ZERO_3, num_ranks=2)
    (tmp_path / "rank0.json").write_bytes(plan.read_bytes())
    (tmp_path / "rank1.json").write_bytes(other.read_bytes())
    for rank in run_ranks(2, "--plan", f"{tmp_path}/rank{{rank}}.json", "--data", str(data)):
        assert rank.code == 1
        assert "the ranks hold different plans (rank 0:" in rank.err


def test_ranks_with_different_data_stop_before_the_first_step(two_ranks: tuple[Path, Path], tmp_path: Path) -> None:
    plan, data = two_ranks
    for rank in (0, 1):
        content = bytearray(data.read_bytes())
        content[7] ^= rank
        (tmp_path / f"rank{rank}").mkdir()
        (tmp_path / f"rank{rank}" / data.name).write_bytes(content)
    for one in run_ranks(2, "--plan", str(plan), "--data", f"{tmp_path}/rank{{rank}}/{data.name}"):
        assert one.code == 1 and not one.steps
        assert "the ranks hold different training data (rank 0:" in one.err
        assert "copy the training data to every host" in one.err


def test_a_missing_package_is_named_with_what_to_do(one_rank: tuple[Path, Path], tmp_path: Path) -> None:
    plan, data = one_rank
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    path = f"{tmp_path}{os.pathsep}{ROOT / 'python'}"
    (rank,) = run_ranks(1, "--plan", str(plan), "--data", str(data), environment={"PYTHONPATH": path})
    assert rank.code == 1
    assert "cannot import torch" in rank.err
    assert "requirements.txt" in rank.err


def test_missing_data_is_an_error_with_a_hint(one_rank: tuple[Path, Path], tmp_path: Path) -> None:
    (rank,) = run_ranks(1, "--plan", str(one_rank[0]), "--data", str(tmp_path / "none.txt"))
    assert rank.code == 1
    assert f"there is no data file {tmp_path / 'none.txt'}" in rank.err
    assert "give the path of a file that docs/data.md knows" in rank.err


def test_no_two_options_of_the_command_line_are_one() -> None:
    destinations = [action.dest for action in make_parser()._actions]
    assert sorted(set(destinations)) == sorted(destinations)


def test_the_command_line_refuses_half_of_a_mode(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, message in ((["--plan", "p"], "--plan and --data"), (["--controller", "c"], "needs --telemetry")):
        with pytest.raises(SystemExit):
            main(argv)
        assert message in capsys.readouterr().err


def test_a_plan_file_is_read_as_it_travels(one_rank: tuple[Path, Path]) -> None:
    header, prose, columns = read_plan_file(one_rank[0])
    assert header.startswith(b"{") and prose.startswith(b"{")
    assert set(columns) >= {"opKind", "opStream", "wait"}
