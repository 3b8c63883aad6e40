"""Runs the code of a plan on the modules of a Hugging Face model: the one place that knows no family either."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fpdt.models.link import Env, Link, Rotary, Weight, Work
from fpdt.models.primitives import PRIMITIVES
from fpdt.plan.model_code import Code, Instruction
from fpdt.plan.nouns import FusedKernels
from fpdt.run.parameters import ParameterError, WeightSlice

RotaryOf = Callable[[Mapping[str, Any]], Rotary]
"""The rotary embedding that the attributes of `angles` name."""


class LinkedCode:
    """The code of one op, linked: it leaves nothing behind but what it wrote into its views, and what it keeps."""

    def __init__(self, works: Sequence[tuple[Work, tuple[str, ...]]]) -> None:
        self._works: Sequence[tuple[Work, tuple[str, ...]]] = works

    def run(self, env: Env) -> Env:
        """Views by name after an @, and `wgrad`; values are added and freed again."""
        for work, frees in self._works:
            work(env)
            for name in frees:
                del env[name]
        return env

    def wrap(self, around: Callable[[int, Work], Work]) -> None:
        """Puts `around(number, work)` in the place of every instruction's work."""
        self._works = [(around(number, work), frees) for number, (work, frees) in enumerate(self._works)]


class Linker:
    """Links code to the weights of one module. Names are relative to it."""

    def __init__(
        self,
        module: nn.Module,
        slices: Sequence[WeightSlice],
        rotary: RotaryOf,
        dtype: torch.dtype,
        fused: FusedKernels,
    ) -> None:
        self._module = module
        self._slices: Mapping[str, WeightSlice] = {one.name: one for one in slices}
        self._rotary = rotary
        self._dtype = dtype
        self._fused = fused

    def link(self, code: Code, keeps: str | None = None) -> LinkedCode:
        """`keeps`: a view of the code that is not given: the value stored to it stays in what `run` returns."""
        return LinkedCode([self._work(one, keeps) for one in code.instructions])

    def _work(self, one: Instruction, keeps: str | None) -> tuple[Work, tuple[str, ...]]:
        if keeps is not None and one.op == "store" and one.into == keeps:
            return _rename(one.reads[0], keeps), one.frees
        transposed = bool(one.attributes.get("transposed", False))
        weights = tuple(self._weight(use.name, use.part, transposed) for use in one.weights)
        rotary = self._rotary(one.attributes) if one.op == "angles" else None
        return PRIMITIVES[one.op](Link.of(one, weights, self._dtype, self._fused, rotary)), one.frees

    def _weight(self, name: str, part: tuple[int, int] | None, transposed: bool) -> Weight:
        try:
            parameter = self._module.get_parameter(name)
        except AttributeError as error:
            names = ", ".join(known for known, _ in self._module.named_parameters())
            raise ParameterError(f"the plan's code uses '{name}', which the module lacks; it has {names}") from error
        return Weight(parameter, self._slices.get(name), part, transposed)


def _rename(value: str, view: str) -> Work:
    def work(env: dict[str, Tensor]) -> None:
        env[view] = env[value]

    return work
