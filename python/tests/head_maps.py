"""Head maps of sequence groups, and what the all-to-all handlers are called with."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

from fpdt.ops.exchange import RankHeads
from fpdt.plan.data import HeadMap
from fpdt.plan.nouns import Attribute, HeadGroup
from fpdt.run.context import OpContext

QKV = ("query", "keyValue", "keyValue")


def head_map_of(ranks: int, heads: int, kv_heads: int) -> HeadMap:
    """Query heads in order, padded at the end; key/value heads shared out, replicated, or one for each query head."""
    own = -(-heads // ranks)
    query = [[h if h < heads else -1 for h in range(r * own, (r + 1) * own)] for r in range(ranks)]
    if heads % ranks == 0 and kv_heads % ranks == 0:
        own_kv = kv_heads // ranks
        key_value = [list(range(r * own_kv, (r + 1) * own_kv)) for r in range(ranks)]
    elif heads % ranks == 0 and ranks % kv_heads == 0:
        key_value = [[r * kv_heads // ranks] for r in range(ranks)]
    else:
        group = heads // kv_heads
        key_value = [[h // group if h >= 0 else -1 for h in own_heads] for own_heads in query]
    return HeadMap(tuple(map(tuple, query)), tuple(map(tuple, key_value)))


def context(
    kind: str, head_map: HeadMap, pair_heads: Sequence[str], rank: object, heads: HeadGroup | None = None
) -> OpContext:
    op = SimpleNamespace(id=7, kind=kind, pair_heads=tuple(pair_heads), attribute=Attribute(heads=heads))
    return cast(OpContext, SimpleNamespace(op=op, engine=SimpleNamespace(head_map=head_map), runtime=rank))


def lists_of(head_map: HeadMap) -> list[RankHeads]:
    return [head_map.query, head_map.key_value, head_map.key_value]


def num_heads(lists: RankHeads) -> int:
    return 1 + max(head for heads in lists for head in heads)
