"""Writes a token store, document by document, in memory that does not grow with it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fpdt.data.store import VERSION, Facts
from fpdt.errors import DataError

Ids = Sequence[int] | NDArray[np.integer]


class StoreWriter:
    """`noun` is what places count. Targets and weights are given for all documents or for none."""

    def __init__(self, folder: Path, source: Path, noun: str, vocabulary: int | None, *, is_text: bool = False) -> None:
        """`vocabulary`: tokens of the tokenizer; None where ids are the source's own, or its bytes (`is_text`)."""
        self.num_tokens = self.num_documents = 0
        self._folder, self._source, self._noun, self._vocabulary = folder, source, noun, vocabulary
        self._is_text = is_text
        self._dtype = "<u1" if is_text else "<u2" if vocabulary is not None and vocabulary <= 1 << 16 else "<i4"
        self._exit = ExitStack()
        self._files: dict[str, BinaryIO] = {}
        self._digest = hashlib.sha256()
        self._largest = (-1, 0)
        self._has_targets = self._has_weights = False
        self._append("starts", np.zeros(1, dtype="<i8"))

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def add(
        self, place: int, ids: Ids, targets: Sequence[int] | None = None, weights: float | Sequence[float] | None = None
    ) -> None:
        """A whole document. Raises DataError for an empty one, and for ids and weights that are none."""
        self.extend(place, ids)
        if targets is not None:
            self._has_targets = True
            self._append("targets", np.asarray(targets, dtype="u1"))
        if weights is not None:
            self._has_weights = True
            self._append("weights", self._checked_weights(place, weights, len(ids)))
        self.end(place)

    def extend(self, place: int, ids: Ids) -> None:
        """More tokens of the document at `place`, which `end` ends."""
        if len(ids) == 0:
            return
        array = np.asarray(ids, dtype=np.int64)
        least, largest = int(array.min()), int(array.max())
        if least < 0 or largest >= 1 << 31:
            raise DataError(f"{self._name(place)} has token {least if least < 0 else largest}", "ids are 0 and more")
        self._largest = max(self._largest, (largest, place), key=lambda found: found[0])
        self._append("tokens", array.astype(self._dtype))
        self.num_tokens += len(array)

    def end(self, place: int) -> None:
        """Raises DataError where nothing was added."""
        if self.num_tokens == self._end:
            raise DataError(f"{self._name(place)} is empty", "take it out, or put text in it")
        self._end = self.num_tokens
        self._append("starts", np.array([self.num_tokens], dtype="<i8"))
        self._append("places", np.array([place], dtype="<i8"))
        self.num_documents += 1

    _end = 0
    """Of the last document that was ended, in tokens."""

    def finish(self, source_bytes: int) -> Facts:
        """Writes what makes the folder a store; all its bytes are on the disk then."""
        if self.num_documents == 0:
            raise DataError(f"{self._source} has no document", "give a file with at least one")
        for file in self._files.values():
            file.flush()
        largest_id, largest_place = self._largest
        facts = Facts(
            version=VERSION,
            source=str(self._source),
            source_bytes=source_bytes,
            digest=self._digest.hexdigest(),
            num_tokens=self.num_tokens,
            num_documents=self.num_documents,
            dtype=self._dtype,
            noun=self._noun,
            is_text=self._is_text,
            vocabulary=self._vocabulary,
            largest_id=largest_id,
            largest_place=largest_place,
            has_targets=self._has_targets,
            has_weights=self._has_weights,
        )
        facts.save(self._folder)
        return facts

    def _append(self, name: str, array: NDArray[np.generic]) -> None:
        if name not in self._files:
            self._files[name] = self._exit.enter_context((self._folder / f"{name}.bin").open("wb"))
        data = array.tobytes()
        self._digest.update(name.encode())
        self._digest.update(data)
        self._files[name].write(data)

    def _checked_weights(self, place: int, weights: float | Sequence[float], count: int) -> NDArray[np.float32]:
        given = weights if isinstance(weights, Sequence) else [weights] * count
        is_number = all(isinstance(weight, int | float) and not isinstance(weight, bool) for weight in given)
        if len(given) != count or not is_number or not all(math.isfinite(weight) and weight >= 0 for weight in given):
            raise DataError(
                f"{self._name(place)} has loss weights that are not one or {count} numbers from 0", "give such weights"
            )
        return np.asarray(given, dtype="<f4")

    def _name(self, place: int) -> str:
        return f"{self._noun} {place} of {self._source}"
