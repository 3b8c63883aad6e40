"""What is on the disk: whole or not there, checked before it is read, and refused where it is of something else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from fpdt.checkpoint.agreement import Agreement
from fpdt.checkpoint.find import Request, find_checkpoint
from fpdt.checkpoint.folder import (
    Checkpoint,
    clear_left_overs,
    commit,
    lock_folder,
    open_checkpoint,
    prune,
    shard_name,
    step_folder,
    writing_folder,
)
from fpdt.checkpoint.fragments import Fragment
from fpdt.checkpoint.identity import check_identity
from fpdt.checkpoint.masters import CheckpointError
from fpdt.checkpoint.saver import Saver, Work
from fpdt.checkpoint.shard import read_index, read_range, write_shard
from fpdt.checkpoint.staging import Staging

CPU = Staging(torch.device("cpu"))
WHOLE = torch.arange(10, dtype=torch.float32)


def fragment(start: int, end: int) -> Fragment:
    return Fragment("w", start, end, {"weight": WHOLE[start:end], "exp_avg": -WHOLE[start:end]}, {"step": 4})


def save(folder: Path, step: int) -> Checkpoint:
    writing = writing_folder(folder, step, "test")
    writing.mkdir(parents=True)
    parts = ((0, 4), (4, 10))
    shards = [write_shard(writing / shard_name(rank), [fragment(*part)], {}, CPU) for rank, part in enumerate(parts)]
    return commit(writing, step_folder(folder, step), step, {"step": step}, shards)


def find(folder: Path, *, newest: bool = True, path: Path | None = None) -> tuple[int | None, tuple[str, ...]]:
    found = find_checkpoint(Request(folder, newest, path), 0, 1, Agreement(1))
    return None if found.checkpoint is None else found.checkpoint.step, found.remarks


def flip_a_bit(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("start", "end"), [(0, 10), (0, 4), (2, 7), (4, 5), (9, 10)])
def test_any_range_is_put_together_from_the_shards_of_other_ranks(start: int, end: int, tmp_path: Path) -> None:
    index = read_index(save(tmp_path, 1).shards)
    target = torch.empty(end - start)
    read_range(index, "exp_avg", "w", start, target, CPU)
    assert target.tolist() == (-WHOLE[start:end]).tolist()
    assert index.scalars == {"w": {"step": 4.0}}


def test_a_shard_is_a_safetensors_file(tmp_path: Path) -> None:
    path = save(tmp_path, 1).shards[1]
    with safe_open(path, "pt") as file:
        found: Tensor = file.get_tensor("weight@4:w")
    assert torch.equal(found, WHOLE[4:])


def test_a_range_that_the_shards_lack_or_have_in_another_dtype_is_named(tmp_path: Path) -> None:
    index = read_index(save(tmp_path, 1).shards[:1])
    with pytest.raises(CheckpointError, match="lacks weight of w from element 4 on"):
        read_range(index, "weight", "w", 0, torch.empty(10), CPU)
    with pytest.raises(CheckpointError, match=r"has weight of w in torch.float32, this run keeps it in torch.bfloat16"):
        read_range(index, "weight", "w", 0, torch.empty(4, dtype=torch.bfloat16), CPU)


def test_one_that_was_being_written_is_never_looked_at(tmp_path: Path) -> None:
    writing = writing_folder(tmp_path, 7, "dead")
    writing.mkdir()
    (writing / "manifest.json").write_text("{")
    assert find(tmp_path) == (None, ())
    clear_left_overs(tmp_path)
    assert list(tmp_path.iterdir()) == []


def damage_shard(folder: Path) -> None:
    flip_a_bit(folder / shard_name(1))


def lose_shard(folder: Path) -> None:
    (folder / shard_name(0)).unlink()


def cut_shard(folder: Path) -> None:
    os.truncate(folder / shard_name(0), 20)


def damage_state(folder: Path) -> None:
    flip_a_bit(folder / "state.json", 3)


def cut_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 40)


def change_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"step": 2', '"step": 3'))


def lose_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def write_another_format(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"format": 99}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (damage_shard, "rank-00001.safetensors is damaged: its SHA-256 is"),
        (lose_shard, "rank-00000.safetensors is missing from the checkpoint"),
        (cut_shard, "rank-00000.safetensors has 20 bytes, "),
        (damage_state, "state.json is damaged"),
        (cut_manifest, "manifest.json is not JSON, or was cut short"),
        (change_manifest, "manifest.json was changed"),
        (lose_manifest, "there is no whole checkpoint in"),
        (write_another_format, "has format 99, this fpdt reads 1"),
    ],
)
def test_a_damaged_one_is_passed_over_or_refused_by_name(harm: object, said: str, tmp_path: Path) -> None:
    assert callable(harm)
    save(tmp_path, 1)
    harm(save(tmp_path, 2).folder)
    step, remarks = find(tmp_path)
    assert step == 1 and len(remarks) == 1 and said in remarks[0]
    with pytest.raises(CheckpointError) as caught:
        find(tmp_path, newest=False, path=tmp_path / "step-00000002")
    assert said in str(caught.value) and caught.value.hint == "give --resume another checkpoint"


def test_a_run_does_not_start_anew_where_all_are_damaged(tmp_path: Path) -> None:
    damage_shard(save(tmp_path, 1).folder)
    with pytest.raises(CheckpointError, match=r"none of the 1 checkpoints in .* is sound") as caught:
        find(tmp_path)
    assert "another folder" in caught.value.hint


def test_checkpoints_of_two_runs_are_not_mixed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    with pytest.raises(CheckpointError, match="has a checkpoint of step 2, later than a fresh start"):
        find(tmp_path, newest=False)
    with pytest.raises(CheckpointError, match="has a checkpoint of step 2, later than step 1"):
        find(tmp_path, newest=False, path=tmp_path / "step-00000001")
    assert find(tmp_path, newest=False, path=tmp_path / "step-00000002") == (2, ())


def test_a_path_stands_in_where_the_folder_has_none_yet(tmp_path: Path) -> None:
    other = save(tmp_path / "other", 5)
    assert find(tmp_path / "new", path=other.folder) == (5, ())
    save(tmp_path / "new", 6)
    assert find(tmp_path / "new", path=other.folder) == (6, ())


def test_the_last_few_that_are_whole_stay(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    lose_shard(step_folder(tmp_path, 3))
    prune(tmp_path, 2)
    # A damaged one does not count, and goes when enough after it are whole.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003", "step-00000004"]
    save(tmp_path, 5)
    prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


def test_a_damaged_one_of_the_same_step_gives_way(tmp_path: Path) -> None:
    damage_shard(save(tmp_path, 1).folder)
    save(tmp_path, 1)
    open_checkpoint(tmp_path / "step-00000001").check_files(range(3))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_one_run_at_a_time_writes_into_a_folder(tmp_path: Path) -> None:
    with (
        lock_folder(tmp_path / "saved"),
        pytest.raises(CheckpointError, match="another run writes checkpoints into"),
    ):
        lock_folder(tmp_path / "saved")
    lock_folder(tmp_path / "saved").close()


def test_a_folder_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write checkpoints into .*: Not a directory"):
        lock_folder(tmp_path / "file" / "saved")


def test_a_folder_that_is_gone_while_saving_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    saver = Saver(tmp_path / "file" / "saved", 2, 0, Agreement(1), CPU)
    (tmp_path / "file").write_text("")
    saver.start(Work(3, [fragment(0, 10)], {}, {"step": 3}))
    saver.release_states()
    saved = saver.take(wait=True)
    assert saved is not None and saved.problem is not None and "Not a directory" in saved.problem
    assert saver.take(wait=True) is None


def test_another_model_is_refused_with_the_first_difference() -> None:
    ours = {"config": {"rope_theta": 1.0}, "weights": {"a": [2, 3], "b": [4]}}
    check_identity(ours, ours, "here")
    with pytest.raises(CheckpointError, match=r"here is of another model: config.rope_theta is 5.0 there, 1.0 in"):
        check_identity({**ours, "config": {"rope_theta": 5.0}}, ours, "here")
    with pytest.raises(CheckpointError, match=r"weights.b is \[8\] there, \[4\] in the plan"):
        check_identity({**ours, "weights": {"a": [2, 3], "b": [8]}}, ours, "here")
    with pytest.raises(CheckpointError, match=r"weights.b is absent there"):
        check_identity({**ours, "weights": {"a": [2, 3]}}, ours, "here")
