"""The step on zero gradients in which DeepSpeed makes an optimizer's states without ZeRO leaves nothing behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from deepspeed.runtime.fp16 import unfused_optimizer
from deepspeed.runtime.fp16.fused_optimizer import FP16_Optimizer
from deepspeed.runtime.fp16.loss_scaler import LossScaleConfig
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from torch import nn

from fpdt.run.zero import undo_first_step

SCALE = LossScaleConfig(torch.float16, False, 1.0, None)
DECAY = {"lr": 0.1, "weight_decay": 0.3}
NUM_STEPS = 3


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfused_optimizer, "dist", SimpleNamespace(get_rank=lambda: 0))


def wrap(kind: Any, inner: torch.optim.Optimizer) -> Any:
    """DeepSpeed's optimizer of weights in half precision, with the step that it takes."""
    return kind(inner, loss_scale_config=SCALE)


@pytest.mark.parametrize(
    ("optimizer", "params"),
    [
        (torch.optim.AdamW, {"amsgrad": True}),
        (torch.optim.Adam, {}),
        (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5}),
        (torch.optim.Adagrad, {"initial_accumulator_value": 0.1, "lr_decay": 0.1}),
        (torch.optim.RMSprop, {"centered": True, "momentum": 0.9}),
        (torch.optim.Adadelta, {}),
        (torch.optim.Adamax, {}),
        (torch.optim.NAdam, {}),
        (torch.optim.RAdam, {}),
    ],
)
def test_what_follows_is_what_a_new_optimizer_does(optimizer: Any, params: dict[str, Any]) -> None:
    weight = nn.Parameter(torch.tensor([2.0, -1.0, 0.5], dtype=torch.float16))
    alone = nn.Parameter(weight.detach().float())
    ours = wrap(FP16_UnfusedOptimizer, optimizer([weight], **DECAY, **params))
    undo_first_step(ours)
    (master,) = ours.fp32_groups[0]
    own = optimizer([alone], **DECAY, **params)
    for step in range(NUM_STEPS):
        for one in (master, alone):
            one.grad = torch.tensor([0.25, -3.0, step - 1.0])
        ours.optimizer.step()
        own.step()
        assert torch.equal(master, alone)


class CountsInNumbers(torch.optim.Adam):
    """As DeepSpeed's FusedAdam, which a CPU does not have."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        for state in self.state.values():
            state["step"] = int(state["step"])


def test_the_fused_optimizers_states_are_as_new() -> None:
    weight = nn.Parameter(torch.full((3,), 2.0, dtype=torch.float16))
    inner = CountsInNumbers([weight], lr=0.5, weight_decay=0.5)
    optimizer = wrap(FP16_Optimizer, inner)
    (master,) = optimizer.fp32_groups_flat
    assert master.tolist() != [2.0] * 3
    undo_first_step(optimizer)
    assert master.tolist() == [2.0] * 3
    state = inner.state[master]
    assert state["step"] == 0
    assert not any(state["exp_avg"]) and not any(state["exp_avg_sq"])
