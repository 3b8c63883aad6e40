"""Row tiles: a token-wise op may work through its rows in pieces, so that what it makes inside is smaller.

Tile i of n is rows [floor(R i / n), floor(R (i + 1) / n)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from fpdt.run.context import OpContext


def by_tiles(ctx: OpContext, work: Callable[..., None], *views: Tensor) -> None:
    """work(*views), rows by rows: the views have equally many, and `work` treats each row by itself."""
    tiles = ctx.op.attribute.tiles
    if tiles == 1:
        work(*views)
        return
    rows = views[0].shape[0]
    for tile in range(tiles):
        start, end = rows * tile // tiles, rows * (tile + 1) // tiles
        if start < end:
            work(*(view[start:end] for view in views))
