"""Ops that move or set data and compute nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fpdt.run.context import OpContext


def zero(ctx: OpContext) -> None:
    for view in ctx.writes:
        view.zero_()


def cast(ctx: OpContext) -> None:
    for read, write in zip(ctx.reads, ctx.writes, strict=True):
        write.copy_(read)


def move(ctx: OpContext) -> None:
    """fetch and offload: the runtime knows how to copy between its pools, and counts the bytes."""
    for read, write in zip(ctx.reads, ctx.writes, strict=True):
        ctx.runtime.copy(write, read)
