"""Weights on a disk: read through any number of buffers, and trained as those in host memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from deepspeed.runtime.swap_tensor.partitioned_param_swapper import (
    AsyncPartitionedParameterSwapper,
    PartitionedParamStatus,
)

from fpdt.models.plan_model import plan_model
from fpdt.plan import load_plan
from fpdt.run.weights_disk import WeightsOnDisk, own_share, share_dtype, take_over
from tests.conftest import Probes
from tests.loops import LEARNING_RATE
from tests.op_builders import compile_ops
from tests.planned import MODEL, ZERO_3, make_plan, write_data
from tests.rounds import full
from tests.test_loop import ACCUMULATION, STEPS, plain_losses, write_samples

LARGE: Mapping[str, Any] = {**MODEL, "hidden_size": 1024, "intermediate_size": 1024, "vocab_size": 1024}
"""Of two ranks a layer has seven shares of 1 MiB and more in fp32, five in bf16: those go to the disk."""


class Disk:
    """What DeepSpeed's swapper has of a disk and its buffers, of four numbers a weight."""

    def __init__(self, num_buffers: int) -> None:
        self.free = [torch.zeros(4) for _ in range(num_buffers)]
        self.taken = dict[int, torch.Tensor]()
        self.num_reads = 0

    def read(self, params: list[Any]) -> None:
        self.num_reads += 1
        for param in params:
            assert param.ds_tensor.status == PartitionedParamStatus.NOT_AVAILABLE
            buffer = self.free.pop()
            self.taken[param.ds_id] = buffer.fill_(param.ds_id)
            param.ds_tensor.data = buffer
            param.ds_tensor.status = PartitionedParamStatus.AVAILABLE

    def release(self, params: list[Any]) -> None:
        for param in params:
            self.free.append(self.taken.pop(param.ds_id))
            param.ds_tensor.status = PartitionedParamStatus.NOT_AVAILABLE

    def forget(self, params: list[Any]) -> None:
        """What is released twice is not there twice."""
        self.release([param for param in params if param.ds_id in self.taken])
        for param in params:
            param.ds_tensor.data = None
            param.ds_tensor.status = PartitionedParamStatus.NOT_AVAILABLE


def weight(number: int) -> Any:
    return SimpleNamespace(
        ds_id=number, ds_tensor=SimpleNamespace(data=None, status=PartitionedParamStatus.NOT_AVAILABLE)
    )


def reader(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> WeightsOnDisk:
    monkeypatch.setattr(AsyncPartitionedParameterSwapper, "__init__", lambda *_: None)
    monkeypatch.setattr("fpdt.run.weights_disk.DeepSpeedConfig", lambda config: config)
    monkeypatch.setattr(AsyncPartitionedParameterSwapper, "swap_in", lambda _, params, async_op: disk.read(params))
    made = WeightsOnDisk({}, torch.float32, torch.device("cpu"))
    made.param_buffer_count = len(disk.free)
    made.remove_partition_and_release_buffers = disk.release
    return made


@pytest.mark.parametrize(("num_buffers", "num_reads"), [(1, 5), (2, 3), (5, 1), (9, 1)])
def test_any_number_of_buffers_will_do(num_buffers: int, num_reads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(num_buffers)
    weights = [weight(number) for number in range(5)]
    reader(disk, monkeypatch).swap_in(weights, async_op=False)
    assert disk.num_reads == num_reads and len(disk.free) == num_buffers
    for number, one in enumerate(weights):
        assert one.ds_tensor.status == PartitionedParamStatus.AVAILABLE
        assert one.ds_tensor.data.tolist() == [number] * 4


def test_nothing_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(1)
    reader(disk, monkeypatch).swap_in([weight(0)], async_op=True)
    assert disk.num_reads == 0


def test_what_comes_back_for_good_comes_through_a_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(1)
    one, block = weight(7), torch.zeros(10)
    reader(disk, monkeypatch).swap_into_buffer(one, block[3:7])
    assert block.tolist() == [0.0] * 3 + [7.0] * 4 + [0.0] * 3
    assert len(disk.free) == 1 and one.ds_tensor.status == PartitionedParamStatus.NOT_AVAILABLE


def test_a_share_is_read_for_the_time_being(monkeypatch: pytest.MonkeyPatch) -> None:
    """As sums over weights that do not train want it, one by one through a single buffer."""
    disk = Disk(1)
    swapper = reader(disk, monkeypatch)
    swapper.remove_partition_and_release_buffers = disk.forget
    for number in (3, 4):
        one = weight(number)
        one.nvme_swapper = swapper
        with own_share(one) as share:
            assert share.data.tolist() == [number] * 4
        assert one.ds_tensor.data is None and one.ds_tensor.status == PartitionedParamStatus.NOT_AVAILABLE
    here = weight(5)
    here.ds_tensor.status = PartitionedParamStatus.AVAILABLE
    place = here.ds_tensor
    with own_share(here) as share:
        assert share is place
    assert here.ds_tensor.status == PartitionedParamStatus.AVAILABLE and disk.num_reads == 2


def test_a_share_that_was_changed_goes_back_through_a_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(1)
    swapper, written = reader(disk, monkeypatch), dict[int, list[float]]()

    def get_buffer(param: Any, numel: int) -> torch.Tensor:
        swapper.param_id_to_swap_buffer[param.ds_id] = buffer = disk.free.pop()
        return buffer[:numel]

    def write(_: Any, params: list[Any]) -> None:
        for param in params:
            buffer = swapper.param_id_to_swap_buffer.pop(param.ds_id)
            written[param.ds_id] = buffer.tolist()
            disk.free.append(buffer)

    swapper.param_id_to_swap_buffer, swapper.get_buffer = {}, get_buffer
    monkeypatch.setattr(AsyncPartitionedParameterSwapper, "swap_out_and_release", write)
    weights = [weight(number) for number in (2, 3)]
    swapper.swap_in(weights, async_op=False)
    for one in weights:
        one.ds_tensor.data += 0.5
    swapper.swap_out_and_release(weights)
    assert written == {2: [2.5] * 4, 3: [3.5] * 4} and len(disk.free) == 1


def test_a_model_of_ones_own_is_read_like_this_once_it_is_on_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = torch.nn.Linear(1, 1)
    device = torch.device("cpu")
    assert not take_over(model, device)
    monkeypatch.setattr(AsyncPartitionedParameterSwapper, "__init__", lambda _: None)
    model.weight.nvme_swapper = model.bias.nvme_swapper = AsyncPartitionedParameterSwapper()
    assert take_over(model, device) and type(model.bias.nvme_swapper) is WeightsOnDisk


def test_what_is_on_the_disk_has_the_dtype_that_it_was_written_in() -> None:
    """Where it is, a number in fp16 stands in for it."""
    one, here = weight(0), torch.nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    one.ds_tensor.dtype, one.nvme_swapper = torch.float16, SimpleNamespace(dtype=torch.float32)
    assert [share_dtype(one), share_dtype(here)] == [torch.float32, torch.bfloat16]
    one.ds_tensor.status = PartitionedParamStatus.AVAILABLE
    assert share_dtype(one) == torch.float16


@pytest.mark.full
def test_loops_of_ones_own_train_with_weights_and_states_on_a_disk(probes: Probes, tmp_path: Path) -> None:
    """As Hugging Face's model alone in fp64; its own forward works before and after. Python stands in for async_io."""
    (tmp_path / "disk").mkdir()
    states = {"device": "nvme", "nvme_path": str(tmp_path / "disk")}
    weights = {**states, "max_in_cpu": 0, **BUFFERS}
    # Without it a Trainer has DeepSpeed save twice into one folder, which it refuses of what is on a disk.
    gathered = {"stage3_gather_16bit_weights_on_model_save": True}
    zero = {**ZERO_3, "sub_group_size": BLOCK, "offload_param": weights, "offload_optimizer": states, **gathered}
    optimizer = {"type": "AdamW", "params": {"lr": LEARNING_RATE, "weight_decay": 0.0, "torch_adam": True}}
    shape = ("--gpus", "2", "--policy", "fpdt", "--steps", str(STEPS))
    path = make_plan(
        tmp_path, *shape, model=LARGE, zero=zero, accumulation_steps=ACCUMULATION, more={"optimizer": optimizer}
    )
    samples = write_samples(tmp_path, STEPS * ACCUMULATION + 1)
    plan_model(load_plan(path), None, with_buffers=True).save_pretrained(tmp_path / "model")  # type: ignore[operator]
    given: dict[str, Any] = {"environment": {"FPDT_FAULT": "plain-disk"}, "steps": STEPS, "worldSize": 2}
    loops = ["own steps", "accelerate", "trainer"]
    job = {"folder": tmp_path, "accumulation": ACCUMULATION, "replicas": 1, "loops": loops}
    answer = probes.run(kind="loops", **job, **given, idleSeconds=300)
    assert "failed" not in answer, answer
    exact = plain_losses(tmp_path, samples, ACCUMULATION, torch.float64)
    for loop in loops:
        assert answer[loop]["losses"] == pytest.approx(exact, rel=1e-5), loop
    before, after = answer["own steps"]["own"]
    assert after < before


@pytest.fixture(scope="module")
def _compiled() -> None:
    compile_ops("AsyncIOBuilder")


BLOCK = 2_000_000
ALL, SOME, NONE = 0, 2 * BLOCK, 1 << 30
"""Elements of a rank that may stay in host memory: of 7 million."""


@pytest.mark.usefixtures("_compiled")
@pytest.mark.parametrize(
    ("host", "optimizer", "dtype", "options"),
    [
        full(ALL, "none", "float32", {}),
        full(SOME, "nvme", "float32", {}),
        full(NONE, "cpu", "float32", {}),
        full(ALL, "cpu", "bfloat16", {"--seq-len": "32"}),
        full(ALL, "cpu", "float32", {"--segment-layers": "2", "--policy": "fpdt"}),
    ],
)
def test_weights_on_a_disk_train_as_those_in_host_memory(
    host: int, optimizer: str, dtype: str, options: dict[str, str], probes: Probes, tmp_path: Path
) -> None:
    """To the bit. For full rounds, and never left out there: without libaio it fails. A layer has more weights than
    there are buffers."""

    def losses(name: str, offload: Mapping[str, Any]) -> list[float]:
        folder = tmp_path / name
        folder.mkdir()
        states = {"device": optimizer, "nvme_path": str(tmp_path / "disk")}
        zero = {**ZERO_3, "sub_group_size": BLOCK, "offload_param": offload, "offload_optimizer": states}
        given = {"--gpus": "2", "--dtype": dtype, **options}
        flat = [word for pair in given.items() for word in pair]
        plan = make_plan(folder, *flat, model=LARGE, zero=zero, accumulation_steps=2)
        answer = probes.run(kind="worker", plan=plan, data=write_data(folder), worldSize=2, steps=3)
        assert "failed" not in answer, answer
        return [step["loss"] for step in answer["steps"]]

    (tmp_path / "disk").mkdir()
    on_disk = {"device": "nvme", "nvme_path": str(tmp_path / "disk"), "max_in_cpu": host, **BUFFERS}
    found = losses("there", on_disk)
    assert found == losses("here", {"device": "cpu"})
    assert list((tmp_path / "disk").iterdir()) == []
    assert found[0] != found[-1]


BUFFERS = {"buffer_count": 2, "buffer_size": 1_000_000}
