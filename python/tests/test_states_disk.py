"""Updates of states on a disk by DeepSpeed's swappers: those of states in memory, wherever gradients lie."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from deepspeed.ops.op_builder import AsyncIOBuilder
from deepspeed.runtime.swap_tensor import async_swapper, optimizer_utils, utils
from deepspeed.runtime.swap_tensor.aio_config import AIO_DEFAULT_DICT
from deepspeed.runtime.swap_tensor.partitioned_optimizer_swapper import PartitionedOptimizerSwapper
from deepspeed.runtime.swap_tensor.pipelined_optimizer_swapper import PipelinedOptimizerSwapper

from fpdt.run.states_disk import read_gradients_anywhere
from fpdt.testing.plain_disk import PlainHandle

SIZES = ((262_144 + 128, 262_144), (64, 524_288), (300_000,))
"""Of the weights of sub-groups, in elements; DeepSpeed writes gradients of 1 MiB and more, their ends aside."""
STEPS = 3


class Disk:
    """A swapper of DeepSpeed's with the calls that its ZeRO-3 makes of it."""

    def __init__(self, kind: type[Any], folder: Path, buffers: int, is_exact: bool) -> None:
        numels = [sum(sizes) for sizes in SIZES]
        self.weights: list[Any] = [torch.empty(0) for _ in SIZES]
        self.optimizer = torch.optim.AdamW([torch.empty(0)], lr=1e-2)
        settings = SimpleNamespace(buffer_count=buffers, pipeline_read=True, pipeline_write=True)
        self.swapper = kind(
            settings, AIO_DEFAULT_DICT, str(folder), self.optimizer, max(numels), "cpu", torch.float32, None
        )
        for number, one in enumerate(self.weights):
            one.ds_id, one.requires_grad = str(number), True
        sources = [torch.linspace(-1, 1, numel) for numel in numels]
        self.swapper.initialize_parameters(parameters=self.weights, src_tensors=sources)
        if is_exact:
            read_gradients_anywhere(SimpleNamespace(optimizer_swapper=self.swapper))

    def step(self, gradients: Sequence[torch.Tensor]) -> None:
        for weight, sizes, gradient in zip(self.weights, SIZES, gradients, strict=True):
            places = [sum(sizes[:number]) for number in range(len(sizes))]
            parts = torch.split(gradient, list(sizes))
            self.swapper.swap_out_gradients(parameter=weight, gradient_offsets=places, gradient_tensors=list(parts))
        for weight, following in zip(self.weights, [*self.weights[1:], None], strict=True):
            self.swapper.swap_in_optimizer_state(parameter=weight, async_parameter=following)
            self.optimizer.param_groups[0]["params"] = [weight]
            self.optimizer.step()
            self.swapper.swap_out_optimizer_state(parameter=weight, async_swap=following is not None)
            weight.grad = None

    def values(self) -> list[torch.Tensor]:
        """What the files have."""
        paths = (self.swapper.swap_params_info[one.ds_id].tensors[0].swap_path for one in self.weights)
        found = (torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.float32) for path in paths)
        return [one[: sum(sizes)] for one, sizes in zip(found, SIZES, strict=True)]


def expected(gradients: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    weights = [torch.linspace(-1, 1, sum(sizes)).requires_grad_() for sizes in SIZES]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient
        optimizer.step()
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize(("kind", "buffers"), [(PartitionedOptimizerSwapper, 4), (PipelinedOptimizerSwapper, 12)])
def test_updates_are_those_of_states_in_memory(
    kind: type[Any], buffers: int, is_exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As DeepSpeed has them they are not: of the second sub-group the large gradient begins at no sector."""
    monkeypatch.setattr(AsyncIOBuilder, "load", lambda *_, **__: SimpleNamespace(aio_handle=PlainHandle))
    for module in (optimizer_utils, utils, async_swapper, sys.modules[kind.__module__]):
        monkeypatch.setattr(module, "dist", SimpleNamespace(get_rank=lambda: 1))
    seeded = torch.Generator().manual_seed(0)
    gradients = [[torch.randn(sum(sizes), generator=seeded) for sizes in SIZES] for _ in range(STEPS)]
    disk = Disk(kind, tmp_path, buffers, is_exact)
    for step in gradients:
        disk.step([one.clone() for one in step])
    same = [torch.equal(*pair) for pair in zip(disk.values(), expected(gradients), strict=True)]
    assert same == [True, is_exact, True]
    if is_exact:
        assert all(one.numel() == 0 for one in disk.weights)
