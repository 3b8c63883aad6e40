"""Lion (arXiv 2302.06675, algorithm 2), which torch has not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class Lion(torch.optim.Optimizer):
    """As DeepSpeed's kernels have it, with its defaults: where nothing moves a weight, they take the sign of zero to be
    positive (csrc/lion/cpu_lion_impl.cpp)."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            near, far = group["betas"]
            for weight in group["params"]:
                momentum = self.state[weight].setdefault("exp_avg", torch.zeros_like(weight))
                update = near * momentum + (1 - near) * weight.grad
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(torch.full_like(update, group["lr"]).copysign_(update))
                momentum.mul_(far).add_(weight.grad, alpha=1 - far)
