"""States of an optimizer on a disk: trained as unsharded, in a folder that nothing is left of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fpdt.errors import FpdtError
from fpdt.run import optimizer_disk as disk
from fpdt.testing.reference import run_reference
from tests.conftest import Probes
from tests.plan_builder import PlanBuilder
from tests.planned import MODEL, ROOT, make_plan, write_data
from tests.rounds import full

LARGE: Mapping[str, Any] = {**MODEL, "hidden_size": 256, "intermediate_size": 512, "vocab_size": 4096}
"""DeepSpeed writes tensors of 1 MiB and more."""


def on_disk(folder: Path, **more: Any) -> dict[str, Any]:
    return {"stage": 3, "offload_optimizer": {"device": "nvme", "nvme_path": str(folder), **more}}


COMPILE = """
from deepspeed.ops.op_builder import AsyncIOBuilder
from deepspeed.accelerator import get_accelerator
AsyncIOBuilder().load(verbose=False)
get_accelerator().create_op_builder("CPUAdamBuilder").load(verbose=False)
"""


@pytest.fixture(scope="module")
def _compiled() -> None:
    """What DeepSpeed compiles when it is first wanted: for minutes, in which ranks would seem to hang."""
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    subprocess.run([sys.executable, "-c", COMPILE], env=environment, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.usefixtures("_compiled")
@pytest.mark.parametrize(
    ("optimizer", "sub_group_size"),
    [
        full({"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}, 1_000_000_000),
        full({"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}, 400_000),
        full({"type": "AdamW", "params": {"lr": 1e-3}}, 400_000),
    ],
)
def test_states_on_a_disk_train_as_unsharded(
    optimizer: dict[str, Any], sub_group_size: int, probes: Probes, tmp_path: Path
) -> None:
    """For full rounds, and never left out there: without libaio it fails."""
    (tmp_path / "disk").mkdir()
    zero = {**on_disk(tmp_path / "disk"), "sub_group_size": sub_group_size}
    plan = make_plan(tmp_path, "--gpus", "2", model=LARGE, zero=zero, more={"optimizer": optimizer})
    answer = probes.run(kind="worker", plan=plan, data=write_data(tmp_path), worldSize=2, steps=3)
    assert "failed" not in answer, answer
    found = [step["loss"] for step in answer["steps"]]
    assert found == pytest.approx(run_reference(plan, tmp_path / "data.txt", 3, "float64", None, None), rel=1e-5)
    assert found[0] != found[-1]
    assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.parametrize("stage", [full(1), full(2)])
def test_below_stage_3_they_are_in_host_memory(stage: int, probes: Probes, tmp_path: Path) -> None:
    """Where DeepSpeed makes no file: the folder need not be there."""
    zero = {**on_disk(tmp_path / "nowhere"), "stage": stage}
    plan = make_plan(tmp_path, "--gpus", "2", zero=zero)
    answer = probes.run(kind="worker", plan=plan, data=write_data(tmp_path), worldSize=2, steps=3)
    assert "failed" not in answer, answer
    found = [step["loss"] for step in answer["steps"]]
    assert found == pytest.approx(run_reference(plan, tmp_path / "data.txt", 3, "float64", None, None), rel=1e-5)


def plan_on(folder: Path, **more: Any) -> Any:
    config = {"zero_optimization": on_disk(folder), "fpdt": {"diskBytesPerParameter": 16, **more}}
    return PlanBuilder(overrides={"deepspeed": config}).build()


@pytest.fixture(autouse=True)
def _has_async_io(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_check_async_io", lambda: None)


def test_a_rank_has_a_folder_of_its_own_and_leaves_nothing(tmp_path: Path) -> None:
    plan = plan_on(tmp_path)
    with disk.optimizer_disk(plan) as one, disk.optimizer_disk(plan) as other:
        assert one is not None and other is not None and one != other
        (one / "states").write_bytes(b"x")
        assert disk.with_folder(plan.deepspeed, one)["zero_optimization"]["offload_optimizer"]["nvme_path"] == str(one)
        assert sorted(tmp_path.iterdir()) == sorted([one, other])
    assert list(tmp_path.iterdir()) == []


def test_without_states_on_a_disk_there_is_no_folder() -> None:
    plan = PlanBuilder().build()
    with disk.optimizer_disk(plan) as folder:
        assert folder is None
    assert disk.with_folder(plan.deepspeed, None) == plan.deepspeed


def test_folders_of_ranks_that_are_gone_are_removed_and_of_others_are_not(tmp_path: Path) -> None:
    (tmp_path / f"{disk.PREFIX}gone" / "zero_stage_3").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / f"{disk.PREFIX}link").symlink_to(tmp_path / "mine")
    with disk.optimizer_disk(plan_on(tmp_path)) as alive, disk.optimizer_disk(plan_on(tmp_path)):
        assert alive is not None and alive.is_dir()
        assert not (tmp_path / f"{disk.PREFIX}gone").exists()
        assert (tmp_path / "mine").is_dir()


HOLDER = """
import sys
from pathlib import Path
from fpdt.run import optimizer_disk as disk
from tests.test_optimizer_disk import plan_on
disk._check_async_io = lambda: None
with disk.optimizer_disk(plan_on(Path(sys.argv[1]))) as folder:
    (folder / "states").write_bytes(b"x" * 4096)
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_rank_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT / "python",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        assert (folder / "states").exists()
        os.kill(holder.pid, signal.SIGKILL)
    while folder.exists():  # As long as it takes: the suite's own limit ends a test that waits for ever.
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "a file", "full"])
def test_a_folder_that_cannot_be_used_is_told_with_what_works(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "disk"
    if kind == "a file":
        folder.write_bytes(b"")
    elif kind == "full":
        folder.mkdir()
        monkeypatch.setattr(disk, "_bytes_of_rank", lambda _: 1 << 60)
    with pytest.raises(FpdtError, match="nvme_path") as found, disk.optimizer_disk(plan_on(folder)):
        pass
    assert found.value.hint
    assert kind != "full" or list(folder.iterdir()) == []


def test_a_folder_that_may_not_be_written_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    with pytest.raises(FpdtError, match="Permission denied"), disk.optimizer_disk(plan_on(tmp_path)):
        pass


def test_without_libaio_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    from deepspeed.ops.op_builder import AsyncIOBuilder

    monkeypatch.setattr(AsyncIOBuilder, "is_compatible", lambda *_, **__: False)
    with pytest.raises(FpdtError) as found:
        disk._check_async_io()
    assert "libaio-dev" in (found.value.hint or "")
