"""Rows of jsonl files: text, conversations and token ids; and rows that cannot be trained on, by line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fpdt.data.corpus import Corpus
from fpdt.data.options import DataOptions
from fpdt.data.preparation import prepare
from fpdt.data.sources import open_corpus
from fpdt.data.tokenizer import Tokenizer
from fpdt.errors import DataError
from tests.data_files import documents_of
from tests.small_tokenizers import TEMPLATE, VOCAB, save_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def prepared(options: DataOptions, vocab: int = VOCAB) -> Corpus:
    assert prepare(options, vocab) is not None
    return open_corpus(options, vocab)


def refused(path: Path, folder: Path | None, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        prepare(DataOptions(path, folder, **options), VOCAB)
    assert caught.value.hint
    cache = path.parent / ".fpdt-cache"
    assert not cache.exists() or list(cache.iterdir()) == []
    return caught.value


def test_text_is_what_the_tokenizer_makes_of_it(tmp_path: Path, folder: Path) -> None:
    texts = ["the quick fox", "über\nzwei Zeilen", "x"]
    path = write(tmp_path / "corpus.jsonl", *({"text": text, "id": 1} for text in texts))
    corpus = prepared(DataOptions(path, folder))
    tokenizer = Tokenizer(folder)
    assert documents_of(corpus) == [[*ids, 1] for ids in tokenizer.encode(texts)]
    assert corpus.documents is not None and corpus.documents.name(2) == "line 3"
    assert corpus.targets is None and corpus.weights is None


def test_documents_begin_as_the_tokenizer_begins_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus.jsonl", {"body": "the fox"}, {"body": "the dog"})
    folder = save_tokenizer(tmp_path / "tokenizer", begins=True)
    found = documents_of(prepared(DataOptions(path, folder, "body")))
    assert [(ids[0], ids[-1]) for ids in found] == [(0, 1), (0, 1)]


def test_only_the_assistants_words_are_targets(tmp_path: Path, folder: Path) -> None:
    turns = [("user", "the fox"), ("assistant", "the dog"), ("user", "and"), ("assistant", "the lazy dog")]
    path = write(tmp_path / "chat.jsonl", {"messages": [{"role": role, "content": text} for role, text in turns]})
    corpus = prepared(DataOptions(path, folder))
    assert corpus.targets is not None
    (ids,) = documents_of(corpus)
    marked = [token for token, target in zip(ids, corpus.targets.tolist(), strict=True) if target]
    tokenizer = Tokenizer(folder)
    assert marked == [*tokenizer.encode(["the dog"])[0], 1, *tokenizer.encode(["the lazy dog"])[0], 1]


def test_token_ids_labels_and_weights_are_read_as_they_are(tmp_path: Path) -> None:
    rows = [
        {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "w": [0.5, 1, 2]},
        {"input_ids": [8, 9], "labels": [8, -100], "w": 3},
    ]
    corpus = prepared(DataOptions(write(tmp_path / "ids.jsonl", *rows), weights_field="w"))
    assert documents_of(corpus) == [[5, 6, 7], [8, 9]]
    assert corpus.targets is not None and corpus.targets.tolist() == [0, 1, 1, 1, 0]
    assert corpus.weights is not None and corpus.weights.tolist() == [0.5, 1, 2, 3, 3]


GOOD = {"text": "the fox"}
USER = {"role": "user", "content": "hi"}
BAD_ROWS: dict[str, tuple[list[Any], str]] = {
    "broken": ([GOOD, '{"text": "the'], r"line 2 of .*bad\.jsonl is not JSON"),
    "not UTF-8": ([GOOD, '"\\ud8"'], "line 2 of .* is not JSON"),
    "blank": ([GOOD, "", GOOD], "line 2 of .* is blank"),
    "a list": ([GOOD, "[1]"], "line 2 of .* is no JSON object but list"),
    "without the field": ([GOOD, {"body": "x"}], "line 2 of .* has no field text, but body"),
    "empty": ([GOOD, GOOD, {"text": ""}], "line 3 of .* has an empty text"),
    "of another kind": ([GOOD, {"text": [1, 2]}], "text of line 2 of .* is not a text, as in the first"),
    "null": ([GOOD, {"text": None}], "text of line 2 of .* is not a text"),
    "no field that is known": (
        [{"body": "x", "id": 3}],
        "line 1 of .* has none of text, messages, input_ids, but body",
    ),
    "two of them": ([{"text": "x", "input_ids": [1]}], "line 1 of .* has text and input_ids"),
    "a number": ([{"text": 3}], "text of line 1 of .* is neither a text, nor messages, nor token ids"),
    "preferences": (
        [{"prompt": "p", "chosen": "a", "rejected": "b"}],
        r"line 1 .* has chosen and rejected: preferences",
    ),
    "distillation": ([{"input_ids": [1], "teacher_logits": [[0.5]]}], "line 1 of .* has teacher_logits: distillation"),
    "no assistant": ([{"messages": [USER]}], "the messages of line 1 of .* have no turn of the assistant"),
    "a message the template cannot write": (
        [{"messages": [USER, {"role": "robot", "content": "x"}]}],
        "the chat template cannot write the messages of line 1 .*: there is no role robot",
    ),
    "a negative id": ([{"input_ids": [1, 2]}, {"input_ids": [1, -2]}], "line 2 of .* has token -2"),
    "a label of its own": (
        [{"input_ids": [1, 2], "labels": [1, 3]}],
        "label 1 of line 1 of .* is 3, neither its token 2",
    ),
    "too few labels": ([{"input_ids": [1, 2], "labels": [1]}], "line 1 of .* has not 2 labels"),
    "nothing": ([], "is empty"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_named_by_its_line_and_nothing_is_left(tmp_path: Path, folder: Path, case: str) -> None:
    rows, message = BAD_ROWS[case]
    error = refused(write(tmp_path / "bad.jsonl", *rows), folder)
    assert re.search(message, str(error)), error


@pytest.mark.parametrize("row", [{"w": -1}, {"w": "1"}, {"w": [1.0]}, {"w": None}, {"w": [1, 2, True]}, {}])
def test_bad_weights_are_named(tmp_path: Path, row: dict[str, Any]) -> None:
    path = write(tmp_path / "bad.jsonl", {"input_ids": [1, 2, 3], **row})
    assert re.search(r"line 1 of .* loss weight", str(refused(path, None, weights_field="w")))


def test_text_needs_a_tokenizer_and_conversations_a_template_that_marks_the_assistant(tmp_path: Path) -> None:
    assert "needs a tokenizer" in str(refused(write(tmp_path / "a.jsonl", GOOD), None))
    chat = write(tmp_path / "chat.jsonl", {"messages": [USER, {"role": "assistant", "content": "x"}]})
    unmarked = TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    error = refused(chat, save_tokenizer(tmp_path / "unmarked", template=unmarked))
    assert "{% generation %}" in error.hint and "which words are the assistant's" in str(error)
    assert "has no chat template" in str(refused(chat, save_tokenizer(tmp_path / "none", template=None)))


def test_tokenizers_that_are_missing_broken_or_larger_than_the_model_are_named(tmp_path: Path, folder: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD)
    assert "there is no tokenizer folder" in str(refused(path, tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    assert "transformers reads no tokenizer from" in str(refused(path, tmp_path / "empty"))
    with pytest.raises(DataError, match="the tokenizer has 300 tokens, the model 299"):
        prepare(DataOptions(path, folder), 299)
    assert prepare(DataOptions(path, folder), VOCAB) is not None
    with pytest.raises(DataError, match="the tokenizer has 300 tokens, the model 299"):
        open_corpus(DataOptions(path, folder), 299)


def test_ids_outside_the_vocabulary_are_named_by_their_line(tmp_path: Path) -> None:
    path = write(tmp_path / "ids.jsonl", {"input_ids": [1, 2]}, {"input_ids": [3, 70, 4]}, {"input_ids": [5]})
    prepare(DataOptions(path), 64)
    with pytest.raises(DataError, match=r"line 2 of .*ids\.jsonl has token 70, outside the vocabulary of 64"):
        open_corpus(DataOptions(path), 64)
    assert documents_of(open_corpus(DataOptions(path), 71))[1] == [3, 70, 4]
