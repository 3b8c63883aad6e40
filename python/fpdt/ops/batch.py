"""The host data of a micro-step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from fpdt.run.context import OpContext


def load_batch(ctx: OpContext, writes: tuple[Tensor, ...]) -> None:
    """Fills the buffers of the plan's tables, in their order."""
    engine = ctx.engine
    for name, write in zip(engine.tables, writes, strict=True):
        write.copy_(engine.batch[name])
