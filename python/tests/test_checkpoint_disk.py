"""Checkpoints of states that DeepSpeed keeps on a disk: to the bit, to and from other places, a block at a time."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fpdt.checkpoint import checkpoints, on_disk, staging
from fpdt.checkpoint.agreement import Agreement
from fpdt.checkpoint.checkpoints import Checkpoints
from fpdt.checkpoint.folder import Checkpoint, open_checkpoint, shard_name
from fpdt.checkpoint.fragments import Fragment
from fpdt.checkpoint.masters import CheckpointError
from fpdt.checkpoint.on_disk import OnDisk, write_zeros
from fpdt.checkpoint.saver import Saver, Work
from fpdt.checkpoint.shard import read_index, read_range, write_shard
from fpdt.checkpoint.staging import Staging
from tests.conftest import Probes
from tests.op_builders import compile_ops
from tests.planned import MODEL, ZERO_3, make_plan, write_data
from tests.rounds import full
from tests.test_checkpoint import LORA, PLAIN, newest, options, train
from tests.test_checkpoint_files import flip_a_bit
from tests.test_checkpoint_files import save as save_files

WHOLE = torch.arange(50, dtype=torch.float32)
CPU = torch.device("cpu")


def stored(path: Path) -> OnDisk:
    path.write_bytes(WHOLE.numpy().tobytes())
    return OnDisk(path, 0, len(WHOLE), torch.float32)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "BLOCK_BYTES", 32)


@pytest.mark.usefixtures("small_blocks")
def test_a_shard_of_states_on_a_disk_is_that_of_states_in_memory(tmp_path: Path) -> None:
    place = stored(tmp_path / "states").narrow(0, 5, 40)
    for name, state in (("memory", WHOLE[5:45]), ("disk", place)):
        write_shard(tmp_path / name, [Fragment("w", 3, 43, {"weight": state}, {"step": 2})], {}, Staging(CPU))
    assert (tmp_path / "disk").read_bytes() == (tmp_path / "memory").read_bytes()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("first", "start", "count"), [(0, 0, 40), (7, 3, 20), (49, 11, 1)])
def test_any_range_is_written_to_its_place_on_the_disk(first: int, start: int, count: int, tmp_path: Path) -> None:
    write_shard(tmp_path / "shard", [Fragment("w", 0, 50, {"weight": WHOLE}, {})], {}, Staging(CPU))
    write_zeros(tmp_path / "states", 4 * (first + count))
    target = OnDisk(tmp_path / "states", first, count, torch.float32)
    read_range(read_index([tmp_path / "shard"]), "weight", "w", start, target, Staging(CPU))
    on_disk.sync(tmp_path / "states")
    found = torch.frombuffer(bytearray((tmp_path / "states").read_bytes()), dtype=torch.float32)
    assert found.tolist() == [0.0] * first + WHOLE[start : start + count].tolist()


def test_no_more_than_a_block_of_a_state_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "BLOCK_BYTES", 32)
    one = Staging(CPU)
    sizes = [len(block) for block in one.blocks(stored(tmp_path / "states"))]
    assert sizes == [32] * 6 + [8]
    assert one._block is not None and one._block.nbytes == 32


def save(path: Path, state: OnDisk) -> str:
    """The problem that a save of it has."""
    saver = Saver(path / "saved", 2, 0, Agreement(1), Staging(CPU))
    saver.start(Work(3, [Fragment("w", 0, state.count, {"weight": state}, {})], {}, {"step": 3}))
    saver.release_states()
    saved = saver.take(wait=True)
    assert saved is not None and list((path / "saved").iterdir()) == []
    return saved.problem or ""


def test_a_state_that_is_gone_or_cut_short_is_a_problem_that_names_its_file(tmp_path: Path) -> None:
    state = stored(tmp_path / "states")
    os.truncate(state.path, 96)
    assert f"{state.path}: it ends at byte 96, 104 too soon" in save(tmp_path, state)
    state.path.unlink()
    assert f"{state.path}: No such file or directory" in save(tmp_path, state)


def test_a_disk_without_room_for_states_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refused)
    with pytest.raises(OSError, match="states: No space left on device"):
        write_zeros(tmp_path / "states", 4096)


def test_a_run_that_has_no_room_for_its_states_is_refused_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it goes on; the checkpoint stays as it is."""
    checkpoint = save_files(tmp_path / "saved", 1)
    session = Checkpoints({}, 0, 1)
    session._identity = {"family": "llama"}
    monkeypatch.setattr(Checkpoint, "state", lambda _: {"model": session._identity, "data": {}})
    monkeypatch.setattr(checkpoints, "held_fragments", lambda *_: write_zeros(tmp_path / "states", 1 << 60))
    trained: Any = SimpleNamespace(engine=None, model=None, data=SimpleNamespace(seek=lambda *_: None))
    with pytest.raises(CheckpointError, match=r"step-00000001 cannot be taken up: .*states: ") as found:
        session._load(checkpoint, trained, Staging(CPU))
    assert "offload_optimizer" in found.value.hint
    open_checkpoint(checkpoint.folder).check_files(range(3))


LARGE: Mapping[str, Any] = {**MODEL, "hidden_size": 128, "intermediate_size": 128, "vocab_size": 4096}
"""Of two ranks a share of the embedding has 1 MiB, which DeepSpeed writes; a layer's weights have a quarter of that."""
PLAIN_DISK = {"FPDT_FAULT": "plain-disk"}
STEPS = 5


def on_the_disk(folder: Path, **more: Any) -> dict[str, Any]:
    (folder / "disk").mkdir(exist_ok=True)
    states = {"device": "nvme", "nvme_path": str(folder / "disk")}
    return {**ZERO_3, "offload_optimizer": states, "sub_group_size": 200_000, **more}


def plan_in(folder: Path, *given: str, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    return make_plan(folder, *given, "--seq-len", "32", model=LARGE, **more)


def test_a_run_with_states_on_a_disk_goes_on_there_and_elsewhere(probes: Probes, tmp_path: Path) -> None:
    """Python stands in for async_io. Sub-groups are on the disk and, too small for it, in memory; gradients lie at any
    place of a sub-group."""
    saved, data = tmp_path / "saved", write_data(tmp_path)
    disk = plan_in(tmp_path / "disked", "--gpus", "2", zero=on_the_disk(tmp_path))
    one = plan_in(tmp_path / "one", "--chunks", "4", zero=PLAIN)
    there: dict[str, Any] = {"environment": PLAIN_DISK}
    whole = train(probes, disk, data, 2, STEPS, options=options(saved, every=1, keep=STEPS), **there)["losses"]
    assert whole[0] != whole[-1]
    path = {"resume": {"newest": False, "path": str(saved / "step-00000002")}}
    elsewhere = train(probes, one, data, 1, STEPS, options={**options(tmp_path / "one-saved"), **path})
    assert elsewhere["losses"] == pytest.approx(whole[2:], rel=1e-5)
    # All that are newer are damaged. States are written to files that no earlier run has left.
    for step in range(3, STEPS + 1):
        flip_a_bit(saved / f"step-{step:08d}" / shard_name(1))
    rest = train(probes, disk, data, 2, STEPS - 1, options={**options(saved), **newest()}, **there)
    assert rest["losses"] == whole[2 : STEPS - 1]
    assert "is damaged: its SHA-256" in rest["remarks"][0] and "goes on at step 2" in rest["remarks"][-1]
    # Of one step more there is no room for a checkpoint, and the one before stays.
    back = train(
        probes,
        disk,
        data,
        2,
        STEPS + 1,
        environment={"FPDT_FAULT": "plain-disk,full:2000000"},
        options={**options(tmp_path / "one-saved", on_save_failure="continue"), **newest()},
    )
    assert back["remarks"] == [f"goes on at step {STEPS} from {tmp_path}/one-saved/step-{STEPS:08d}"]
    assert [one["step"] for one in back["saved"]] == [STEPS + 1]
    assert "No space left on device" in back["saved"][0]["problem"]
    assert sorted(path.name for path in (tmp_path / "one-saved").iterdir()) == ["lock", f"step-{STEPS:08d}"]
    assert list((tmp_path / "disk").iterdir()) == []


WEIGHTS = {"buffer_count": 2, "buffer_size": 1_000_000}


@pytest.mark.full
def test_weights_that_do_not_train_are_summed_up_on_the_disk(probes: Probes, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(LORA))
    (tmp_path / "disk").mkdir()
    lora = ("--lora", str(tmp_path / "adapter_config.json"))
    weights = {"device": "nvme", "nvme_path": str(tmp_path / "disk"), **WEIGHTS}
    disk = plan_in(tmp_path / "disked", "--gpus", "2", *lora, zero={**ZERO_3, "offload_param": weights})
    other = plan_in(tmp_path / "seed", "--gpus", "2", *lora, "--seed", "7", zero={**ZERO_3, "offload_param": weights})
    one = plan_in(tmp_path / "one", "--chunks", "4", *lora, zero=PLAIN)
    saved, data = options(tmp_path / "saved"), write_data(tmp_path)
    there: dict[str, Any] = {"environment": PLAIN_DISK}
    whole = train(probes, one, data, 1, STEPS, options={"poison": False})["losses"]
    train(probes, disk, data, 2, 2, options=saved, **there)
    resumed = {**saved, **newest()}
    refused = probes.run(kind="worker", plan=other, data=data, worldSize=2, steps=STEPS, options=resumed, **there)
    assert "frozenSum" in refused["failed"]
    assert train(probes, one, data, 1, 4, options=resumed)["losses"] == pytest.approx(whole[2:4], rel=1e-5)
    assert train(probes, disk, data, 2, STEPS, options=resumed, **there)["losses"] == pytest.approx(whole[4:], rel=1e-5)


@pytest.fixture(scope="module")
def _compiled() -> None:
    compile_ops("AsyncIOBuilder", "CPUAdamBuilder")


TORCH_ADAM = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}
CPU_ADAM = {"type": "AdamW", "params": {"lr": 1e-3}}
PIPELINED = {"pipeline_read": True, "pipeline_write": True, "buffer_count": 8}


@pytest.mark.usefixtures("_compiled")
@pytest.mark.parametrize(
    ("optimizer", "states", "weights", "dtype"),
    [
        full(TORCH_ADAM, {}, None, "float32"),
        full(CPU_ADAM, {}, 0, "float32"),
        full(TORCH_ADAM, PIPELINED, 400_000, "bfloat16"),
        full(TORCH_ADAM, {"device": "cpu"}, 0, "float32"),
    ],
)
def test_on_the_compiled_op_they_go_on_to_the_bit_and_in_host_memory(
    optimizer: dict[str, Any], states: dict[str, Any], weights: int | None, dtype: str, probes: Probes, tmp_path: Path
) -> None:
    """For full rounds, and never left out there: without libaio it fails. `weights`: elements of a rank that may stay
    in host memory of those on a disk, where any are."""
    disk = str(tmp_path / "disk")
    on_disk = on_the_disk(tmp_path, offload_optimizer={"device": "nvme", "nvme_path": disk, **states})
    if weights is not None:
        on_disk["offload_param"] = {"device": "nvme", "nvme_path": disk, "max_in_cpu": weights, **WEIGHTS}
    on_host = {**on_disk, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "none"}}
    given = ("--gpus", "2", "--dtype", dtype)
    more = {"optimizer": optimizer}
    there, here = (
        plan_in(tmp_path / name, *given, zero=zero, more=more) for name, zero in (("a", on_disk), ("b", on_host))
    )
    saved, data = tmp_path / "saved", write_data(tmp_path)
    whole = train(probes, there, data, 2, STEPS + 2, options={"poison": False})
    first = train(probes, there, data, 2, 3, options=options(saved, every=1))
    assert first["losses"] == whole["losses"][:3] and whole["losses"][0] != whole["losses"][-1]
    resumed = {**options(saved), **newest()}
    rest = [
        *train(probes, there, data, 2, STEPS, options=resumed)["losses"],
        *train(probes, here, data, 2, STEPS + 1, options=resumed)["losses"],
        *train(probes, there, data, 2, STEPS + 2, options=resumed)["losses"],
    ]
    # DeepSpeed's Adam for hosts has powers of its betas as products, and as powers where it goes on.
    is_exact = optimizer is TORCH_ADAM
    assert rest == (whole["losses"][3:] if is_exact else pytest.approx(whole["losses"][3:], rel=1e-6))
    assert list((tmp_path / "disk").iterdir()) == []
