"""Ops that move, set or scale data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from fpdt.run.context import OpContext
    from fpdt.run.files import FileSlice


def zero(ctx: OpContext, writes: tuple[Tensor, ...]) -> None:
    for view in writes:
        view.zero_()


def cast(ctx: OpContext, reads: tuple[Tensor, ...], writes: tuple[Tensor, ...]) -> None:
    for read, write in zip(reads, writes, strict=True):
        write.copy_(read)


def copy(ctx: OpContext, reads: tuple[Tensor | FileSlice, ...], writes: tuple[Tensor | FileSlice, ...]) -> None:
    """Between pools; the runtime knows how, and counts the bytes."""
    for read, write in zip(reads, writes, strict=True):
        ctx.runtime.copy(write, read, ctx)


def rescale(ctx: OpContext, accumulates: tuple[Tensor, ...]) -> None:
    """Gradients were formed for an upstream gradient that turned out to be another."""
    quotient = ctx.engine.quotient
    if quotient != 1.0:
        for view in accumulates:
            view.mul_(quotient)
