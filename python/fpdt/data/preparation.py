"""Makes the token store of a source."""

from __future__ import annotations

from pathlib import Path

from fpdt.data.arrow import arrow_rows
from fpdt.data.kinds import PREPARED, Kind, kind_of, source_files
from fpdt.data.options import DataOptions
from fpdt.data.prepared import make_store
from fpdt.data.progress import Progress
from fpdt.data.records import jsonl_rows
from fpdt.data.rows_to_tokens import add_rows
from fpdt.data.store_writer import StoreWriter
from fpdt.data.text import ByteEncoder, TextEncoder, add_fasta, add_text
from fpdt.data.tokenizer import Tokenizer, check_vocabulary

NOUNS: dict[Kind, str] = {"text": "document", "jsonl": "line", "fasta": "record", "arrow": "row"}


def prepare(options: DataOptions, vocab_size: int) -> Path | None:
    """The folder of the store, made where it is not there; None for a kind that ranks read as it is.

    Raises DataError for whatever in the source, or in the tokenizer, the model cannot be trained on.
    """
    kind = kind_of(options)
    if kind not in PREPARED:
        return None
    return make_store(options, lambda folder: fill(folder, options, kind, vocab_size))


def fill(folder: Path, options: DataOptions, kind: Kind, vocab_size: int) -> None:
    """Writes a store of a source into a new folder."""
    path, size = options.path, sum(file.stat().st_size for file in source_files(options))
    tokenizer = None if options.tokenizer is None else _tokenizer(options.tokenizer, vocab_size)
    progress = Progress(path.name, size)
    vocabulary = None if tokenizer is None else tokenizer.num_tokens
    is_bytes = kind == "fasta" and tokenizer is None
    with StoreWriter(folder, path.resolve(), NOUNS[kind], vocabulary, is_text=is_bytes) as writer:
        if kind == "text" and tokenizer is not None:
            add_text(path, tokenizer, writer, progress)
        elif kind == "fasta":
            encoder = ByteEncoder() if tokenizer is None else TextEncoder(tokenizer, path)
            add_fasta(path, encoder, writer, progress)
        else:
            rows = arrow_rows(path, progress) if kind == "arrow" else jsonl_rows(path, progress)
            add_rows(rows, options, NOUNS[kind], tokenizer, writer)
        writer.finish(size)


def _tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """Of rows with token ids none is needed, but one that is given must be the model's."""
    tokenizer = Tokenizer(folder)
    check_vocabulary(tokenizer.num_tokens, vocab_size)
    return tokenizer
