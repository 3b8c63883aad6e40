"""What an op does that the documents of a micro-step leave nothing to do: see Executor.begin_documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fpdt.run.context import OpContext


def skip(ctx: OpContext, *views: Any) -> None:
    """Nothing; its stream, and what waits for it, go on as if it had been done."""


def skip_transfer(ctx: OpContext, *views: Any) -> None:
    """Of a copy with a file, whose end somebody may wait for: all pairs of a copy take one link."""
    reads, writes = views
    ctx.runtime.skip_copy(writes[-1], reads[-1], ctx)
