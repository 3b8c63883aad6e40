"""What of each document is trained on: all of it, or pieces that fit into a sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fpdt.data.corpus import Corpus, Documents
from fpdt.data.options import LongDocuments
from fpdt.data.tokens import Int64
from fpdt.errors import DataError


@dataclass(frozen=True)
class Pieces:
    """Piece i is `lengths[i]` tokens from `first[i]` on."""

    first: Int64
    lengths: Int64


def pieces_of(corpus: Corpus, documents: Documents, seq_len: int, long_documents: LongDocuments) -> Pieces:
    """Raises DataError for a corpus without a document, an empty one, and one too long where these are refused."""
    lengths = documents.lengths
    if len(lengths) == 0:
        raise DataError(f"{corpus.path} has no document", "give a file with at least one")
    empty = np.flatnonzero(lengths == 0)
    if empty.size:
        raise DataError(f"{documents.name(int(empty[0]))} of {corpus.path} is empty", "take it out")
    if long_documents == "split":
        return _split(documents, seq_len)
    if long_documents == "refuse":
        _refuse_long(corpus, documents, seq_len)
    return Pieces(documents.starts[:-1], np.minimum(lengths, seq_len))


def _split(documents: Documents, seq_len: int) -> Pieces:
    """Pieces of seqLen tokens, the last of a document shorter."""
    counts = -(-documents.lengths // seq_len)
    document = np.repeat(np.arange(len(documents)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = documents.starts[document] + number * seq_len
    return Pieces(first, np.minimum(seq_len, documents.starts[document + 1] - first))


def _refuse_long(corpus: Corpus, documents: Documents, seq_len: int) -> None:
    longest = int(np.argmax(documents.lengths))
    num_long = int((documents.lengths > seq_len).sum())
    if num_long == 0:
        return
    first = int(np.argmax(documents.lengths > seq_len))
    raise DataError(
        f"{documents.name(first)} of {corpus.path} has {documents.lengths[first]} tokens, a sequence has "
        f"seqLen={seq_len}; {num_long} of {len(documents)} documents are too long",
        f"plan for seqLen={documents.lengths[longest]}, or give --long-documents split or truncate",
    )
