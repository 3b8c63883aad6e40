"""What stands before and after attention in a decoder layer, and its reverse: the layer's code on the op's views.

All of it works by row tiles where the op says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from fpdt.ops.tiles import by_tiles

if TYPE_CHECKING:
    from fpdt.models.interpreter import LinkedCode
    from fpdt.run.context import OpContext


def pre(ctx: OpContext, x: Tensor, positions: Tensor, q: Tensor, k: Tensor, v: Tensor) -> None:
    _run(ctx, ctx.layer.pre, {"@x": x, "@positions": positions, "@q": q, "@k": k, "@v": v})


def pre_q(ctx: OpContext, x: Tensor, positions: Tensor, q: Tensor) -> None:
    _run(ctx, ctx.layer.pre_q, {"@x": x, "@positions": positions, "@q": q})


def pre_kv(ctx: OpContext, x: Tensor, positions: Tensor, k: Tensor, v: Tensor) -> None:
    _run(ctx, ctx.layer.pre_kv, {"@x": x, "@positions": positions, "@k": k, "@v": v})


def post(ctx: OpContext, x: Tensor, o: Tensor, y: Tensor) -> None:
    _run(ctx, ctx.layer.post, {"@x": x, "@o": o, "@y": y})


def post_keep(ctx: OpContext, x: Tensor, o: Tensor, y: Tensor, kept: Tensor) -> None:
    """`kept`: [rows, columns of all products that post_bwd_kept needs]."""
    _run(ctx, ctx.layer.post_keep, {"@x": x, "@o": o, "@y": y, "@kept": kept})


def post_bwd(ctx: OpContext, x: Tensor, o: Tensor, do: Tensor, dx: Tensor, wgrad: Tensor) -> None:
    """dx holds dL/dy on entry and dL/dx of post on return; pre_bwd adds the rest."""
    _run(ctx, ctx.layer.post_bwd, {"@x": x, "@o": o, "@do": do, "@dx": dx}, wgrad)


def post_bwd_kept(ctx: OpContext, x: Tensor, o: Tensor, kept: Tensor, do: Tensor, dx: Tensor, wgrad: Tensor) -> None:
    """post_bwd, with products that post_keep kept."""
    _run(ctx, ctx.layer.post_bwd_kept, {"@x": x, "@o": o, "@kept": kept, "@do": do, "@dx": dx}, wgrad)


def pre_bwd(
    ctx: OpContext, x: Tensor, positions: Tensor, dq: Tensor, dk: Tensor, dv: Tensor, dx: Tensor, wgrad: Tensor
) -> None:
    views = {"@x": x, "@positions": positions, "@dq": dq, "@dk": dk, "@dv": dv, "@dx": dx}
    _run(ctx, ctx.layer.pre_bwd, views, wgrad)


def _run(ctx: OpContext, code: LinkedCode, views: dict[str, Tensor], wgrad: Tensor | None = None) -> None:
    """Code sees rows only: heads and their dimensions are one axis."""
    names = tuple(views)

    def work(*rows: Tensor) -> None:
        env = {name: _rows(view) for name, view in zip(names, rows, strict=True)}
        if wgrad is not None:
            env["wgrad"] = wgrad
        code.run(env)

    by_tiles(ctx, work, *views.values())


def _rows(view: Tensor) -> Tensor:
    """[rows, heads, d] as [rows, heads d]; a view or an error, never a copy."""
    return view.view(view.shape[0], -1) if view.dim() > 2 else view
