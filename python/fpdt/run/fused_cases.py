"""What kernels beside attention are tested on: the instructions of a plan that they run, on rows of seeded values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fpdt.attention import merge as merges
from fpdt.models import fused as products
from fpdt.models.link import Env, Link, Weight
from fpdt.models.primitives import PRIMITIVES
from fpdt.ops import loss, loss_in_place
from fpdt.plan import Plan
from fpdt.plan.model_code import Code, Instruction
from fpdt.plan.nouns import FusedKernels
from fpdt.run.parameters import WeightSlice

ROWS = 6
BLOCK_ROWS = 4
"""Of those that work block by block: a whole block, and one that is not."""
MOST_LOGITS = 500
WIDTH = 64
_SEED = 1


@dataclass(frozen=True)
class Trial:
    """Which kernels run, and how precisely: in `dtype`, that of the run, or in fp64 on values rounded to it."""

    fused: FusedKernels
    dtype: torch.dtype
    device: torch.device
    is_exact: bool = False

    def given(self, values: Tensor) -> Tensor:
        """Values of the model."""
        precision = torch.float64 if self.is_exact else self.dtype
        return values.to(self.dtype).to(self.device, precision, copy=True)

    def wide(self, values: Tensor) -> Tensor:
        """What the plan keeps in fp32."""
        return values.float().to(self.device, torch.float64 if self.is_exact else torch.float32, copy=True)

    def with_blocks(self, row_bytes: int) -> FusedKernels:
        """Kernels whose blocks have BLOCK_ROWS rows."""
        return self.fused.model_copy(update={"block_bytes": BLOCK_ROWS * row_bytes})


class Case(NamedTuple):
    """Of a kind of FUSED_KERNELS. `run` gives its results by name: the same on every rank."""

    kind: str
    run: Callable[[Trial], Mapping[str, Tensor]]


def cases_of(plan: Plan) -> Iterator[Case]:
    """Of every kind that the plan's model has a use for."""
    yield Case("loss", partial(_loss, plan))
    yield Case("merge", _merge)
    yield Case("weight_gradient", _product)
    seen = set()
    for one in (one for code in _codes(plan) for one in code.instructions):
        kind = _kind_of(one)
        key = (one.op, *sorted(one.attributes.items()))
        if kind is not None and key not in seen:
            seen.add(key)
            yield Case(kind, partial(_instruction, one))


def _codes(plan: Plan) -> Iterator[Code]:
    for part in (plan.code, *plan.code.classes):
        yield from (value for _, value in part if isinstance(value, Code))


_KINDS = {"rmsnorm": "norm", "rmsnormBwd": "norm", "rope": "rope", "ropeBwd": "rope"}


def _kind_of(one: Instruction) -> str | None:
    """Whose kernel runs it; None: it has no other than the plain one."""
    return _KINDS.get(one.op, "elementwise" if "reuse0" in one.attributes else None)


def _instruction(one: Instruction, trial: Trial) -> Mapping[str, Tensor]:
    weights, env = _bound(one, trial)
    PRIMITIVES[one.op](Link.of(one, weights, trial.dtype, trial.fused))(env)
    results = {f"result {number} of {one.op}": env[name] for number, name in enumerate(one.writes)}
    return results | ({f"weight gradient of {one.op}": env["wgrad"]} if weights else {})


def _bound(one: Instruction, trial: Trial) -> tuple[tuple[Weight, ...], Env]:
    """Its weights, which train, and what it reads: angles of a rotation as cosines and sines."""
    generator, attributes = torch.Generator().manual_seed(_SEED), one.attributes

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    if "headDim" in attributes:
        angles = randn(ROWS, int(attributes["dims"]) // 2)
        values = [randn(ROWS, 2 * int(attributes["headDim"])), torch.cat([angles.cos(), angles.sin()], 1)]
        return (), {name: trial.given(value) for name, value in zip(one.reads, values, strict=True)}
    size = int(attributes.get("size", WIDTH))
    env = {name: trial.given(randn(ROWS, size)) for name in one.reads}
    if not one.weights:
        return (), env
    env["wgrad"] = trial.wide(randn(size))
    weight = nn.Parameter(trial.given(1 + randn(size) / 4), requires_grad=False)
    return (Weight(weight, WeightSlice("weight", weight, (size,), 0, size), None, False),), env


def _loss(plan: Plan, trial: Trial) -> Mapping[str, Tensor]:
    generator, softcap, factor = torch.Generator().manual_seed(_SEED), plan.code.lm_head.softcap, 4.0
    vocab = min(MOST_LOGITS, int(plan.model["vocabSize"]))
    labels = torch.randint(0, vocab, (ROWS,), generator=generator)
    labels[1] = loss_in_place.IGNORED_LABEL
    weights = trial.wide(torch.rand(ROWS, generator=generator)) if plan.packing else None
    logits = trial.given(4 * torch.randn(ROWS, vocab, generator=generator, dtype=torch.float64))
    labels = labels.to(trial.device)
    if softcap is not None:
        logits.div_(softcap).tanh_()
    if trial.fused.loss == "inplace":
        block_bytes = trial.with_blocks(4 * vocab).block_bytes
        losses = loss_in_place.cross_entropy_in_place(logits, labels, factor, weights, softcap, block_bytes)
        return {"losses": losses, "gradients of logits": logits}
    bent = logits if softcap is None else logits * softcap
    losses, gradients = loss.cross_entropy(bent, labels, factor, weights)
    if softcap is not None:
        gradients.mul_(1 - logits.square())
    return {"losses": losses, "gradients of logits": gradients}


def _merge(trial: Trial) -> Mapping[str, Tensor]:
    """Rows have seen no key before, none in this part, none at all, or both."""
    generator, heads, head_dim = torch.Generator().manual_seed(_SEED), 2, 8
    o, part = (torch.randn(ROWS, heads, head_dim, generator=generator) for _ in range(2))
    lse, lse_part = (torch.randn(ROWS, heads, generator=generator) for _ in range(2))
    for output, sums, blind in ((o, lse, [0, 2]), (part, lse_part, [1, 2])):
        output[blind] = 0
        sums[blind] = float("-inf")
    o, lse, part, lse_part = trial.wide(o), trial.wide(lse), trial.given(part), trial.wide(lse_part)
    if trial.fused.merge == "lerp":
        merges.merge_by_lerp(o, lse, part, lse_part, trial.with_blocks(4 * heads * head_dim).block_bytes)
    else:
        merges.merge_partial(o, lse, part, lse_part)
    return {"merged output": o, "exponentials of merged lse": lse.exp()}


def _product(trial: Trial) -> Mapping[str, Tensor]:
    """To a weight that begins somewhere in its region, and to some columns of one."""
    generator, tokens, rows, columns = torch.Generator().manual_seed(_SEED), 32, 3 * BLOCK_ROWS, 40
    left, right = (trial.given(torch.randn(tokens, size, generator=generator)) for size in (rows, columns))
    whole = trial.wide(torch.randn(3 + rows * columns, generator=generator))[3:].view(rows, columns)
    some = trial.wide(torch.randn(rows, columns + 16, generator=generator))[:, 8:-8]
    for total in (whole, some):
        products.add_product(total, left.t(), right, trial.with_blocks(columns * left.element_size()))
    return {"gradient of a weight": whole, "gradient of a weight's columns": some}
