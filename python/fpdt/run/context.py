"""What a handler is given: one op, its views and what the engine has bound the section to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from fpdt.plan import Op

if TYPE_CHECKING:
    from fpdt.models.base import EngineBinding, LayerBinding
    from fpdt.run.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Bound:
    """What one call of `Executor.run_part` runs against; made by the engine, read by handlers.

    `layers` maps each layer slot of the segment to the modules that pre and post of that slot use, `extra` holds what
    embed, loss and emitGrads need. The three callbacks do the work of external ops, which the plan only places:
    `gather(slot)` and `release(slot)` bring and drop the weights of a slot, `load_batch()` fills tokenIds, positions
    and labels (found through `Executor.buffer`).
    """

    layers: Mapping[int, LayerBinding]
    extra: EngineBinding
    gather: Callable[[int], None]
    release: Callable[[int], None]
    load_batch: Callable[[], None]


@dataclass(frozen=True, slots=True)
class OpContext:
    """An op and exactly its declared views, positional, in the order of the op table.

    Every view is a row range of an arena buffer with its own version counter. Tensors that a handler makes die in it;
    the stream of the op is current while it runs.
    """

    op: Op
    reads: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]
    accumulates: tuple[Tensor, ...]
    runtime: Runtime
    bound: Bound


Handler = Callable[[OpContext], None]
