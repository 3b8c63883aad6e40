"""Long texts in pieces: text files, and the records of FASTA files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from fpdt.data.progress import Progress
from fpdt.data.store_writer import Ids, StoreWriter
from fpdt.data.tokenizer import Tokenizer
from fpdt.errors import DataError

PIECE_BYTES = 1 << 20


class Encoder(Protocol):
    """What a document begins and ends with, and the ids of a piece of it."""

    def begin(self) -> Ids: ...

    def piece(self, text: bytes) -> Ids: ...

    def end(self) -> Ids: ...


class TextEncoder:
    """By a tokenizer; text is UTF-8."""

    def __init__(self, tokenizer: Tokenizer, path: Path) -> None:
        self._tokenizer, self._path = tokenizer, path

    def begin(self) -> Ids:
        return self._tokenizer.prefix

    def piece(self, text: bytes) -> Ids:
        try:
            return self._tokenizer.encode([text.decode()])[0]
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self._path} is not UTF-8: {error.reason} in {error.object[error.start :][:4]!r}", UTF8
            ) from error

    def end(self) -> Ids:
        return self._tokenizer.suffix


UTF8 = "write it as UTF-8"


class ByteEncoder:
    """Each byte is a token."""

    def begin(self) -> Ids:
        return []

    def piece(self, text: bytes) -> Ids:
        return np.frombuffer(text, dtype=np.uint8)

    def end(self) -> Ids:
        return []


def add_text(path: Path, tokenizer: Tokenizer, writer: StoreWriter, progress: Progress) -> None:
    """A file as one document. It is cut after line ends, where tokenizers that split words cut too."""
    encoder = TextEncoder(tokenizer, path)
    writer.extend(1, encoder.begin())
    for piece in line_pieces(path):
        progress.advance(len(piece))
        writer.extend(1, encoder.piece(piece))
    writer.extend(1, encoder.end())
    writer.end(1)


def line_pieces(path: Path) -> Iterator[bytes]:
    """Of PIECE_BYTES at most, up to the end of a line where one holds any, of a character where not."""
    rest = b""
    with path.open("rb") as file:
        while block := file.read(PIECE_BYTES - len(rest)):
            piece, rest = rest + block, b""
            if len(piece) == PIECE_BYTES:
                cut = piece.rfind(b"\n") + 1 or _character_end(piece)
                piece, rest = piece[:cut], piece[cut:]
            yield piece
    if rest:
        yield rest


def _character_end(text: bytes) -> int:
    """Where the last character of UTF-8 text begins, which may be cut; all of it where that is none."""
    at = len(text) - 1
    while at > 0 and text[at] & 0xC0 == 0x80:
        at -= 1
    return at or len(text)


def add_fasta(path: Path, encoder: Encoder, writer: StoreWriter, progress: Progress) -> None:
    """A document a record: the letters of its lines, without the line of its name. Raises DataError."""
    record = 0
    for number, letters in fasta_pieces(path, progress):
        if number != record:
            writer.extend(number, encoder.begin())
            record = number
        if letters is None:
            writer.extend(number, encoder.end())
            writer.end(number)
        else:
            writer.extend(number, encoder.piece(letters))


def fasta_pieces(path: Path, progress: Progress) -> Iterator[tuple[int, bytes | None]]:
    """(record from 1, letters of it), and (record, None) at its end. Raises DataError for one without letters."""
    record, letters, num_letters, in_name = 0, bytearray(), 0, False
    for is_new, line in _line_parts(path):
        progress.advance(len(line))
        if is_new and line.startswith(b">"):
            yield from _end_record(path, record, letters, num_letters)
            record, letters, num_letters, in_name = record + 1, bytearray(), 0, True
        elif is_new:
            in_name = False
        if record == 0 and line.strip():
            raise DataError(f"{path} begins with letters of no record", "a record begins with a line of > and its name")
        if record > 0 and not in_name:
            letters += line.strip()
            num_letters += len(line.strip())
        if len(letters) >= PIECE_BYTES:
            yield record, bytes(letters)
            letters.clear()
    yield from _end_record(path, record, letters, num_letters)


def _end_record(path: Path, record: int, letters: bytearray, num_letters: int) -> Iterator[tuple[int, bytes | None]]:
    if record == 0:
        return
    if num_letters == 0:
        raise DataError(f"record {record} of {path} has no letters", "take it out")
    if letters:
        yield record, bytes(letters)
    yield record, None


def _line_parts(path: Path) -> Iterator[tuple[bool, bytes]]:
    """(whether a line begins here, its next PIECE_BYTES at most): a genome may be one line."""
    is_new = True
    with path.open("rb") as file:
        while part := file.readline(PIECE_BYTES):
            yield is_new, part
            is_new = part.endswith(b"\n")
