"""Folders of a rank for what DeepSpeed keeps on a disk: nothing is left of them; and runs with states there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fpdt.errors import FpdtError
from fpdt.run import disk_needs as needs
from fpdt.run import rank_disk as disk
from fpdt.testing.reference import run_reference
from tests.conftest import Probes
from tests.op_builders import compile_ops
from tests.plan_builder import PlanBuilder
from tests.planned import MODEL, ROOT, make_plan, write_data
from tests.rounds import full

LARGE: Mapping[str, Any] = {**MODEL, "hidden_size": 256, "intermediate_size": 512, "vocab_size": 4096}
"""DeepSpeed writes tensors of 1 MiB and more."""


TORCH_ADAM = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}


def on_disk(folder: Path, **more: Any) -> dict[str, Any]:
    return {"stage": 3, "offload_optimizer": {"device": "nvme", "nvme_path": str(folder), **more}}


@pytest.fixture(scope="module")
def _compiled() -> None:
    compile_ops("AsyncIOBuilder", "CPUAdamBuilder")


@pytest.mark.usefixtures("_compiled")
@pytest.mark.parametrize(
    ("optimizer", "sub_group_size", "more"),
    [
        full(TORCH_ADAM, 1_000_000_000, {}),
        full(TORCH_ADAM, 400_000, {}),
        full({"type": "AdamW", "params": {"lr": 1e-3}}, 400_000, {}),
        full(TORCH_ADAM, 400_000, {"pipeline_read": True, "buffer_count": 8}),
        full(TORCH_ADAM, 300_000, {"pipeline_read": True, "pipeline_write": True, "buffer_count": 12}),
    ],
)
def test_states_on_a_disk_train_as_unsharded(
    optimizer: dict[str, Any], sub_group_size: int, more: dict[str, Any], probes: Probes, tmp_path: Path
) -> None:
    """For full rounds, and never left out there: without libaio it fails."""
    (tmp_path / "disk").mkdir()
    zero = {**on_disk(tmp_path / "disk", **more), "sub_group_size": sub_group_size}
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


def plan_on(folder: Path, *sections: str, **more: Any) -> Any:
    """With states in `folder`, or with what is said."""
    places = {name: {"device": "nvme", "nvme_path": str(folder), **more} for name in sections or ("offload_optimizer",)}
    config = {"zero_optimization": {"stage": 3, **places}, "fpdt": {"diskBytesPerParameter": 16}}
    return PlanBuilder(overrides={"deepspeed": config}).build()


@pytest.fixture(autouse=True)
def _has_async_io(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "_check_async_io", lambda: None)


def test_a_rank_has_folders_of_its_own_and_leaves_nothing(tmp_path: Path) -> None:
    plan = plan_on(tmp_path, "offload_optimizer", "offload_param")
    with disk.rank_disk(plan) as one, disk.rank_disk(plan) as other:
        folders = [*one.values(), *other.values()]
        assert list(one) == list(other) == ["offload_optimizer", "offload_param"]
        assert sorted(tmp_path.iterdir()) == sorted(folders)
        (one["offload_param"] / "weights").write_bytes(b"x")
        zero = disk.with_folders(plan.deepspeed, one)["zero_optimization"]
        assert {name: zero[name]["nvme_path"] for name in one} == {name: str(folder) for name, folder in one.items()}
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_is_on_a_disk_there_is_no_folder() -> None:
    plan = PlanBuilder().build()
    with disk.rank_disk(plan) as folders:
        assert folders == {}
    assert disk.with_folders(plan.deepspeed, {}) == plan.deepspeed


def test_where_one_folder_cannot_be_made_none_is_left(tmp_path: Path) -> None:
    plan = plan_on(tmp_path, "offload_optimizer", "offload_param")
    plan.deepspeed["zero_optimization"]["offload_param"]["nvme_path"] = str(tmp_path / "missing")
    with pytest.raises(FpdtError, match="missing"), disk.rank_disk(plan):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folders_of_ranks_that_are_gone_are_removed_and_of_others_are_not(tmp_path: Path) -> None:
    (tmp_path / f"{disk.PREFIX}gone" / "zero_stage_3").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / f"{disk.PREFIX}link").symlink_to(tmp_path / "mine")
    with disk.rank_disk(plan_on(tmp_path)) as alive, disk.rank_disk(plan_on(tmp_path)):
        assert alive["offload_optimizer"].is_dir()
        assert not (tmp_path / f"{disk.PREFIX}gone").exists()
        assert (tmp_path / "mine").is_dir()


HOLDER = """
import sys
from pathlib import Path
from fpdt.run import disk_needs as needs
from fpdt.run import disk_needs as needs
from fpdt.run import rank_disk as disk
from tests.test_rank_disk import plan_on
needs._check_async_io = lambda: None
with disk.rank_disk(plan_on(Path(sys.argv[1]), *needs.SECTIONS)) as folders:
    for folder in folders.values():
        (folder / "states").write_bytes(b"x" * 4096)
    print(*folders.values(), flush=True)
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
        folders = [Path(path) for path in holder.stdout.readline().split()]
        assert len(folders) == 2 and all((folder / "states").exists() for folder in folders)
        os.kill(holder.pid, signal.SIGKILL)
    while any(
        folder.exists() for folder in folders
    ):  # As long as it takes: the suite's own limit ends a test that waits for ever.
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
        monkeypatch.setattr(needs, "_bytes_of_rank", lambda *_: 1 << 60)
    with pytest.raises(FpdtError, match="nvme_path") as found, disk.rank_disk(plan_on(folder)):
        pass
    assert found.value.hint
    assert kind != "full" or list(folder.iterdir()) == []


def test_a_folder_that_may_not_be_written_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    with pytest.raises(FpdtError, match="Permission denied"), disk.rank_disk(plan_on(tmp_path)):
        pass


def test_sections_that_share_a_disk_ask_for_the_room_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(needs, "_bytes_of_rank", lambda *_: free * 2 // 3)
    monkeypatch.setattr(needs, "_check_lockable", lambda _: None)
    with disk.rank_disk(plan_on(tmp_path, "offload_param")):
        pass
    with pytest.raises(FpdtError, match="bytes free"), disk.rank_disk(plan_on(tmp_path, *needs.SECTIONS)):
        pass


def test_memory_that_may_not_be_locked_is_told(tmp_path: Path) -> None:
    """DeepSpeed would abort the process."""
    plan = plan_on(tmp_path, "offload_param", buffer_size=1 << 54)
    with pytest.raises(FpdtError, match="locked memory") as found, disk.rank_disk(plan):
        pass
    assert "ulimit -l" in (found.value.hint or "")


def test_a_file_system_without_direct_transfers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refusing(path: Any, flags: int, *mode: int, **more: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return opened(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(FpdtError, match="O_DIRECT") as found, disk.rank_disk(plan_on(tmp_path)):
        pass
    assert "ext4" in (found.value.hint or "")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_without_libaio_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    from deepspeed.ops.op_builder import AsyncIOBuilder

    monkeypatch.setattr(AsyncIOBuilder, "is_compatible", lambda *_, **__: False)
    with pytest.raises(FpdtError) as found:
        needs._check_async_io()
    assert "libaio-dev" in (found.value.hint or "")
