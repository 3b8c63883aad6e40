"""The token-wise ops of a plan's first layer and of its head, and a merge, on weights and views of their own.

No model is built and nothing is trained: what an op of the plan runs, with the kernels beside attention that are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fpdt.models.base import HeadBinding
from fpdt.models.bind import bind_layer
from fpdt.models.interpreter import LinkedCode, Linker
from fpdt.models.link import Rotary
from fpdt.ops import HANDLERS
from fpdt.plan import Plan
from fpdt.plan.data import ParameterView
from fpdt.plan.model_code import Code
from fpdt.plan.nouns import FusedKernels
from fpdt.run.parameters import bind_weights
from gpu.seeded import power_of_two, seeded

CODES = ("pre", "pre_bwd", "post", "post_bwd")
THETA = 10_000.0
_GRADIENTS = ("@dq", "@dk", "@dv")
"""What attention adds up in fp32."""


@dataclass(frozen=True)
class Source:
    """Where numbers come from. `seeded`: the same on every machine; else drawn on the device, as fast as it can."""

    device: torch.device
    dtype: torch.dtype
    is_seeded: bool

    @property
    def wide(self) -> torch.dtype:
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def numbers(self, name: str, shape: Sequence[int], dtype: torch.dtype, scale: float = 1.0) -> Tensor:
        """`scale`: a power of two."""
        if self.is_seeded:
            return seeded(name, shape, self.device, dtype, scale)
        return torch.randn(tuple(shape), device=self.device, dtype=dtype).mul_(scale)


def plan_ops(
    plan: Plan, fused: FusedKernels, rows: int, loss_rows: int, source: Source
) -> dict[str, Callable[[], Mapping[str, Tensor]]]:
    """By name, what runs an op once and gives what it wrote. A second run adds to what the first one left."""
    layer, regions = plan.code.classes[0], plan.parameters.layers[0]
    module = _module(regions.weights, source)
    bound = bind_layer(module, 0, plan, lambda attributes: _rotary(attributes, source.device), source.dtype, fused)
    ops = {
        name: _code(getattr(bound, name), getattr(layer, name), rows, regions.num_elements, source) for name in CODES
    }
    return {**ops, "loss": _loss(plan, fused, loss_rows, source), "merge": _merge(plan, fused, rows, source)}


def _code(
    linked: LinkedCode, code: Code, rows: int, num_weights: int, source: Source
) -> Callable[[], Mapping[str, Tensor]]:
    env: dict[str, Tensor] = {}
    for name, width in code.widths.items():
        if name == "@positions":
            env[name] = torch.arange(rows, device=source.device)
        elif name.startswith("@"):
            dtype = source.wide if name in _GRADIENTS else source.dtype
            env[name] = source.numbers(name, (rows, width), dtype)
    written = {one.into for one in code.instructions if one.into in env}
    if any(one.op == "linearBwd" for one in code.instructions):
        env["wgrad"] = torch.zeros(num_weights, dtype=source.wide, device=source.device)
        written.add("wgrad")

    def run() -> Mapping[str, Tensor]:
        with torch.no_grad():
            linked.run(dict(env))
        return {name: env[name] for name in sorted(filter(None, written))}

    return run


def _loss(plan: Plan, fused: FusedKernels, rows: int, source: Source) -> Callable[[], Mapping[str, Tensor]]:
    """Of a head without a bias, whose matrix is its own or that of the embedding."""
    table, code = plan.parameters, plan.code
    hidden, vocab = int(plan.model["hiddenSize"]), int(plan.model["vocabSize"])
    norm_rows = [row for row in table.head if row.offset < table.num_head_norm_elements and row.numel != vocab * hidden]
    module = _module(norm_rows, source)
    matrix = _module([ParameterView("weight", (vocab, hidden), 0, vocab * hidden, trainable=True)], source)
    (product,) = bind_weights(matrix, [ParameterView("weight", (vocab, hidden), 0, vocab * hidden, trainable=True)])
    link = Linker(module, bind_weights(module, norm_rows), _no_rotary, source.dtype, fused).link
    head = HeadBinding(
        norm=link(code.head, keeps="@y"),
        norm_bwd=link(code.head_bwd),
        weight=product.parameter,
        bias=None,
        scale=code.lm_head.scale,
        softcap=code.lm_head.softcap,
    )
    context = _context(fused, head=head, lm_head_weights=(product,), loss_factor=1.0, watch_losses=None)
    x = source.numbers("loss/x", (rows, hidden), source.dtype)
    labels = torch.arange(rows, device=source.device) * 7 % vocab
    views = {
        "dx": torch.zeros_like(x),
        "lossSum": torch.zeros(1, dtype=source.wide, device=source.device),
        "wgrad": torch.zeros(table.num_head_norm_elements, dtype=source.wide, device=source.device),
        "wgradLmHead": torch.zeros(vocab * hidden, dtype=source.wide, device=source.device),
    }

    def run() -> Mapping[str, Tensor]:
        with torch.no_grad():
            HANDLERS["loss"](context, x, labels, *views.values())
        return views

    return run


def _merge(plan: Plan, fused: FusedKernels, rows: int, source: Source) -> Callable[[], Mapping[str, Tensor]]:
    heads, width = len(plan.head_map.query[0]), plan.code.classes[0].pre.widths["@q"]
    shape = (rows, heads, width // heads)
    o_part = source.numbers("merge/o", shape, source.dtype)
    lse_part, lse = (source.numbers(f"merge/{name}", shape[:2], source.wide) for name in ("lsePart", "lse"))
    total = source.numbers("merge/total", shape, source.wide)
    context = _context(fused)

    def run() -> Mapping[str, Tensor]:
        HANDLERS["merge"](context, o_part, lse_part, total, lse)
        return {"o": total, "lse": lse}

    return run


def _context(fused: FusedKernels, **engine: Any) -> Any:
    """What the handlers of a loss and of a merge look at."""
    kernels = SimpleNamespace(fused=fused)
    return SimpleNamespace(
        engine=SimpleNamespace(kernels=kernels, **engine), op=SimpleNamespace(attribute=SimpleNamespace(tiles=1))
    )


def _module(rows: Iterable[ParameterView], source: Source) -> nn.Module:
    """Weights by their names; products of unit numbers stay about that large, norms have weights about 1."""
    root = nn.Module()
    for row in rows:
        *path, last = row.name.split(".")
        owner = root
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        columns = row.shape[-1] if len(row.shape) > 1 else 16
        values = source.numbers(row.name, row.shape, source.dtype, power_of_two(columns**-0.5))
        if len(row.shape) == 1:
            values.add_(1)
        owner.register_parameter(last, nn.Parameter(values, requires_grad=row.trainable))
    return root


def _rotary(attributes: Mapping[str, Any], device: torch.device) -> Rotary:
    dims = int(attributes["dims"])
    return Rotary((THETA ** -(torch.arange(0, dims, 2, dtype=torch.float32) / dims)).to(device), 1.0)


def _no_rotary(attributes: Mapping[str, Any]) -> Rotary:
    raise AssertionError(f"a head turns nothing, found {attributes}")
