"""Attention ops go through the documents in their rows: the kernel runs once for each piece of one."""

from __future__ import annotations

from collections.abc import Iterator

from fpdt.attention import Documents, Mask, Piece
from fpdt.plan import Op


def by_documents(op: Op, documents: Documents, mask: Mask) -> Iterator[tuple[slice, slice, Piece]]:
    """Rows of the op's queries and of its keys that one document has, and the mask between them; counts their pairs."""
    assert op.kv is not None  # checked when the plan was decoded
    queries, keys = (op.tokens.start, op.tokens.end), (op.kv.start, op.kv.end)
    for piece in documents.pieces(queries, keys, mask):
        documents.pairs[op.kind] += piece.pairs
        (first, last), (begin, end) = piece.queries, piece.keys
        yield slice(first - queries[0], last - queries[0]), slice(begin - keys[0], end - keys[0]), piece
