"""The op kinds this worker knows, one row each; the planner's own table travels in the plan and is held against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fpdt.errors import PlanError

Views = tuple[str, ...] | Literal["many"]
KindStream = Literal["compute", "comm", "link"]
SAME_VERSION = "install the npm and the Python package in the same version"


@dataclass(frozen=True, slots=True)
class OpKind:
    """What every op of a kind has in common.

    `stream` is "link" where it follows from the pools of the views. `external` work is ZeRO's: the plan places it, the
    engine does it. `needs_layer`: its handler uses the weights of the call's layer (not part of the plan's table).
    """

    name: str
    stream: KindStream
    reads: Views = ()
    writes: Views = ()
    accumulates: Views = ()
    external: bool = False
    needs_layer: bool = False

    @property
    def groups(self) -> tuple[Views, Views, Views]:
        return self.reads, self.writes, self.accumulates

    @property
    def is_paired(self) -> bool:
        """The i-th read goes with the i-th write."""
        return self.reads == "many" and self.writes == "many"


def _kind(name: str, stream: KindStream, views: str = "", *, external: bool = False, layer: bool = False) -> OpKind:
    """`views` as the contract writes them: "x o -> do; dx wgrad"."""
    moved, _, accumulates = views.partition(";")
    reads, _, writes = moved.partition("->")
    return OpKind(name, stream, _views(reads), _views(writes), _views(accumulates), external, layer)


def _views(text: str) -> Views:
    names = tuple(text.split())
    return "many" if names == ("many",) else names


_ROWS = (
    _kind("loadBatch", "compute", "-> many"),
    _kind("embed", "compute", "tokenIds positions -> x"),
    _kind("zero", "compute", "-> many"),
    _kind("pre", "compute", "x positions -> q k v", layer=True),
    _kind("preQ", "compute", "x positions -> q", layer=True),
    _kind("preKv", "compute", "x positions -> k v", layer=True),
    _kind("toHeads", "comm", "many -> many"),
    _kind("toSequence", "comm", "many -> many"),
    _kind("attn", "compute", "q k v -> o lse", layer=True),
    _kind("mergeFirst", "compute", "oPart lsePart -> oAcc lse"),
    _kind("merge", "compute", "oPart lsePart; oAcc lse"),
    _kind("cast", "compute", "many -> many"),
    _kind("post", "compute", "x o -> y", layer=True),
    _kind("postKeep", "compute", "x o -> y kept", layer=True),
    _kind("postBwd", "compute", "x o -> do; dx wgrad", layer=True),
    _kind("postBwdKept", "compute", "x o kept -> do; dx wgrad", layer=True),
    _kind("attnBwd", "compute", "q k v o lse do; dq dk dv", layer=True),
    _kind("preBwd", "compute", "x positions dq dk dv; dx wgrad", layer=True),
    _kind("loss", "compute", "x labels -> dx; lossSum wgrad wgradLmHead"),
    _kind("lossWeighted", "compute", "x labels weights -> dx; lossSum wgrad wgradLmHead"),
    _kind("lossOnly", "compute", "x labels; lossSum"),
    _kind("rescale", "compute", "; many"),
    _kind("embedBwd", "compute", "dx tokenIds positions; wgrad"),
    _kind("emitGrads", "compute", "wgrad"),
    _kind("copy", "link", "many -> many"),
    _kind("gather", "comm", external=True, layer=True),
    _kind("release", "comm", external=True, layer=True),
    _kind("reduce", "comm", external=True),
    _kind("optimizerStep", "compute", external=True),
)

OP_KINDS = {row.name: row for row in _ROWS}
EXTERNAL_KINDS = frozenset(row.name for row in _ROWS if row.external)


def check_kinds(rows: Sequence[OpKind]) -> None:
    """Raises PlanError for a kind of the plan that this worker does not know, or knows otherwise."""
    unknown = [row.name for row in rows if row.name not in OP_KINDS]
    if unknown:
        raise PlanError(f"this worker does not know the op kinds {', '.join(map(repr, unknown))}", SAME_VERSION)
    for row in rows:
        own = OP_KINDS[row.name]
        for field in ("stream", "reads", "writes", "accumulates", "external"):
            theirs, ours = getattr(row, field), getattr(own, field)
            if theirs != ours:
                found = f"op kind {row.name}: the plan says {field} {_text(theirs)}, this worker {_text(ours)}"
                raise PlanError(found, SAME_VERSION)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    return str(value)
