"""Opens what `--data` names, by what it is, and says which sequences it makes."""

from __future__ import annotations

from dataclasses import dataclass

from fpdt.data.corpus import Corpus
from fpdt.data.demand import Demand
from fpdt.data.fingerprint import of_files
from fpdt.data.flat import open_bin, open_bytes, open_npy
from fpdt.data.kinds import PREPARED, kind_of
from fpdt.data.megatron import open_megatron
from fpdt.data.options import DataOptions
from fpdt.data.pieces import pieces_of
from fpdt.data.prepared import find_store
from fpdt.data.sequences import PackedDocuments, Sequences, Slices
from fpdt.data.store import open_store
from fpdt.errors import DataError


@dataclass(frozen=True)
class TrainingData:
    """`cut` says in words what sequences are. `seed` of their order; None: that of the source."""

    corpus: Corpus
    sequences: Sequences
    cut: str
    seed: int | None
    packs: bool
    """Documents keep apart, padding too."""


def open_data(options: DataOptions, demand: Demand) -> TrainingData:
    """Maps files, reads no tokens. Raises DataError for what a run could not train on, as far as that is known now."""
    corpus = open_corpus(options, demand.vocab_size)
    documents = corpus.documents if demand.packs else None
    shuffles = documents is not None if options.shuffle is None else options.shuffle
    _check_choices(corpus, options, demand, shuffles)
    seed = (demand.seed if options.seed is None else options.seed) if shuffles else None
    if documents is None:
        cut = f"slices of {demand.seq_len} tokens"
        return TrainingData(corpus, Slices(corpus, demand.seq_len, seed), cut, seed, demand.packs)
    long_documents = options.long_documents or "refuse"
    pieces = pieces_of(corpus, documents, demand.seq_len, long_documents)
    cut = f"documents packed into {demand.seq_len} tokens, longer ones: {long_documents}"
    return TrainingData(corpus, PackedDocuments(pieces, demand.seq_len, seed), cut, seed, demand.packs)


def _check_choices(corpus: Corpus, options: DataOptions, demand: Demand, shuffles: bool) -> None:
    """Raises DataError for what this plan, or this data, has no use for."""
    if corpus.weights is not None and not demand.packs:
        hint = "plan with --packing, or leave --data-weights out"
        raise DataError(f"{corpus.path} has loss weights, the plan none", hint)
    if options.long_documents is not None and not (demand.packs and corpus.documents is not None):
        found = "has no documents" if corpus.documents is None else "is not packed by this plan"
        raise DataError(f"--long-documents is for packed documents; {corpus.path} {found}", "leave it out")
    if options.seed is not None and not shuffles:
        hint = "give --shuffle, or leave it out"
        raise DataError(f"--data-seed is of an order that is not that of {corpus.path}", hint)


def open_corpus(options: DataOptions, vocab_size: int) -> Corpus:
    """Raises DataError for what is not there, is of no known kind, was not prepared, or is damaged."""
    kind, path = kind_of(options), options.path
    if kind in PREPARED:
        return open_store(find_store(options), path, vocab_size)
    if kind == "megatron":
        return open_megatron(path, vocab_size)
    if kind == "npy":
        tokens = open_npy(path, vocab_size)
    elif kind == "bin":
        tokens = open_bin(path, vocab_size, options.dtype)
    else:
        tokens = open_bytes(path, vocab_size)
    return Corpus(tokens, of_files(path))
