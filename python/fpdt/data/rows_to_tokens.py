"""Makes documents of rows: of their text, their conversation, or the token ids that they have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from fpdt.data.options import DataOptions
from fpdt.data.records import Row
from fpdt.data.store_writer import StoreWriter
from fpdt.data.tokenizer import FOLDER_HINT, Tokenizer
from fpdt.data.tokens import IGNORED_LABEL
from fpdt.errors import DataError

Kind = Literal["text", "messages", "input_ids"]
FIELDS: tuple[Kind, ...] = ("text", "messages", "input_ids")
"""Looked for where no field is named."""
OTHER_LOSSES = {
    "preferences (DPO)": ("chosen", "rejected"),
    "distillation": ("teacher_logits", "logits", "teacher_logprobs"),
}
BATCH_CHARS = 1 << 20
"""Of text that the tokenizer gets at once, all its threads together."""


class RowDocuments:
    """Adds the documents of rows to a store."""

    def __init__(self, options: DataOptions, noun: str, tokenizer: Tokenizer | None) -> None:
        self._options, self._noun, self._tokenizer = options, noun, tokenizer
        self._field = ""
        self._kind: Kind = "text"
        self._has_labels = False
        self._texts: list[tuple[int, str, float | None]] = []
        self._num_chars = 0

    def add(self, writer: StoreWriter, place: int, row: Row) -> None:
        """Raises DataError for a row that lacks what the first one had, or has something else in its place."""
        if not self._field:
            self._choose(place, row)
        value, weights = self._value(place, row, self._field), self._weights(place, row)
        if self._kind == "text":
            self._texts.append((place, value, weights))
            self._num_chars += len(value)
            if self._num_chars >= BATCH_CHARS:
                self.flush(writer)
        elif self._kind == "messages":
            self._add_conversation(writer, place, row, value, weights)
        else:
            writer.add(place, value, self._targets(place, row, value), weights)

    def flush(self, writer: StoreWriter) -> None:
        """Text that waits for more."""
        texts, self._texts, self._num_chars = self._texts, [], 0
        if texts:
            documents = self._needed_tokenizer().documents([text for _, text, _ in texts])
            for (place, _, weights), ids in zip(texts, documents, strict=True):
                writer.add(place, ids, None, weights)

    def _choose(self, place: int, row: Row) -> None:
        field = self._options.field or self._only_field(place, row)
        self._field = field
        value = self._value(place, row, field, any_kind=True)
        kind = _kind_of(value)
        if kind is None:
            raise DataError(
                f"{field} of {self._name(place)} is neither a text, nor messages, nor token ids",
                "name another field with --data-field",
            )
        self._kind = kind
        self._has_labels = kind == "input_ids" and "labels" in row
        if kind == "messages":
            self._needed_tokenizer().check_template()
        elif kind == "text":
            self._needed_tokenizer()

    def _only_field(self, place: int, row: Row) -> str:
        for loss, names in OTHER_LOSSES.items():
            found = [name for name in names if name in row]
            if found:
                raise DataError(
                    f"{self._name(place)} has {' and '.join(found)}: {loss} has another loss",
                    "name a field to train on with --data-field; docs/data.md says where another loss would go",
                )
        present = [name for name in FIELDS if name in row]
        if len(present) == 1:
            return present[0]
        what = (
            f"{' and '.join(present)}" if present else f"none of {', '.join(FIELDS)}, but {', '.join(row) or 'nothing'}"
        )
        raise DataError(f"{self._name(place)} has {what}", "say which field to train on with --data-field")

    def _value(self, place: int, row: Row, field: str, *, any_kind: bool = False) -> Any:
        if field not in row:
            raise DataError(
                f"{self._name(place)} has no field {field}, but {', '.join(row) or 'none'}", self._field_hint()
            )
        value = row[field]
        if value in ("", []):
            raise DataError(f"{self._name(place)} has an empty {field}", "take it out, or put something in it")
        if not any_kind and _kind_of(value) != self._kind:
            was = {"text": "a text", "messages": "messages", "input_ids": "token ids"}[self._kind]
            raise DataError(f"{field} of {self._name(place)} is not {was}, as in the first", self._field_hint())
        return value

    def _field_hint(self) -> str:
        return "give every one the field that --data-field names, of the same kind"

    def _weights(self, place: int, row: Row) -> Any:
        field = self._options.weights_field
        if field is None:
            return None
        if row.get(field) is None:
            raise DataError(
                f"{self._name(place)} has no loss weight {field}", "--data-weights names a field of every one"
            )
        return row[field]

    def _add_conversation(self, writer: StoreWriter, place: int, row: Row, messages: Any, weights: Any) -> None:
        try:
            ids, targets = self._needed_tokenizer().conversation(messages, row.get("tools"))
        except Exception as error:  # A template may raise what it likes.
            raise DataError(
                f"the chat template cannot write the messages of {self._name(place)}: {error}",
                "mend the messages, or the template",
            ) from error
        if not any(targets):
            raise DataError(f"the messages of {self._name(place)} have no turn of the assistant", "take it out")
        writer.add(place, ids, targets, weights)

    def _targets(self, place: int, row: Row, ids: Sequence[int]) -> list[int] | None:
        """1 where a label is its own token, as Hugging Face has labels before they are shifted."""
        if not self._has_labels:
            return None
        labels = row.get("labels")
        if not isinstance(labels, list) or len(labels) != len(ids):
            raise DataError(f"{self._name(place)} has not {len(ids)} labels, one for each token", "give as many")
        for number, (label, token) in enumerate(zip(labels, ids, strict=True)):
            if label not in (token, IGNORED_LABEL):
                raise DataError(
                    f"label {number} of {self._name(place)} is {label}, neither its token {token} nor {IGNORED_LABEL}",
                    "labels are the tokens themselves, not shifted, or -100",
                )
        return [int(label != IGNORED_LABEL) for label in labels]

    def _needed_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise DataError(f"{self._options.path} has text, which needs a tokenizer", f"--tokenizer: {FOLDER_HINT}")
        return self._tokenizer

    def _name(self, place: int) -> str:
        return f"{self._noun} {place} of {self._options.path}"


def add_rows(
    rows: Iterator[tuple[int, Row]], options: DataOptions, noun: str, tokenizer: Tokenizer | None, writer: StoreWriter
) -> None:
    """All of them, in order. Raises DataError."""
    documents = RowDocuments(options, noun, tokenizer)
    for place, row in rows:
        documents.add(writer, place, row)
    documents.flush(writer)


def _kind_of(value: Any) -> Kind | None:
    if isinstance(value, str):
        return "text"
    if not isinstance(value, list):
        return None
    if all(isinstance(item, dict) and "role" in item for item in value):
        return "messages"
    return "input_ids" if all(type(item) is int for item in value) else None
