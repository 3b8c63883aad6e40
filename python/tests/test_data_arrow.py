"""Folders of `datasets`: tests/fixtures/datasets was written by save_to_disk of datasets 5.2.0."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from fpdt.data.options import DataOptions
from fpdt.data.preparation import prepare
from fpdt.data.sources import open_corpus
from fpdt.data.tokenizer import Tokenizer
from fpdt.errors import DataError
from tests.data_files import documents_of
from tests.small_tokenizers import VOCAB, save_tokenizer

SAVED = Path(__file__).parent / "fixtures" / "datasets"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(SAVED / name, folder / name))


def refused(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        prepare(DataOptions(path), VOCAB)
    assert caught.value.hint
    return caught.value


def test_text_of_all_shards_is_read_in_order(tmp_path: Path, tokenizer: Path) -> None:
    options = DataOptions(copied("text", tmp_path), tokenizer)
    prepare(options, VOCAB)
    corpus = open_corpus(options, VOCAB)
    assert documents_of(corpus) == Tokenizer(tokenizer).documents(["the quick fox", "the dog", "über\nzwei"])
    assert corpus.documents is not None and corpus.documents.name(2) == "row 3"


def test_ids_labels_and_weights_are_columns(tmp_path: Path) -> None:
    options = DataOptions(copied("ids", tmp_path), weights_field="w")
    prepare(options, VOCAB)
    corpus = open_corpus(options, VOCAB)
    assert documents_of(corpus) == [[5, 6, 7], [8, 9]]
    assert corpus.targets is not None and corpus.targets.tolist() == [0, 1, 1, 1, 1]
    assert corpus.weights is not None and corpus.weights.tolist() == [0.5, 0.5, 0.5, 2, 2]


def test_conversations_are_lists_of_structs(tmp_path: Path, tokenizer: Path) -> None:
    options = DataOptions(copied("chat", tmp_path), tokenizer)
    prepare(options, VOCAB)
    corpus = open_corpus(options, VOCAB)
    assert corpus.targets is not None and corpus.targets.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_folders_that_are_no_dataset_are_named(tmp_path: Path) -> None:
    error = refused(SAVED / "splits")
    assert "holds the splits train, test" in str(error) and error.hint.endswith("splits/train")
    assert "has no state.json" in str(refused(tmp_path))
    folder = copied("text", tmp_path)
    (folder / "data-00001-of-00002.arrow").unlink()
    assert "lacks data-00001-of-00002.arrow" in str(refused(folder))
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "_indices_data_files": [{"filename": "indices.arrow"}]}))
    assert "keeps the order of its rows apart" in str(refused(folder))
    (folder / "state.json").write_text("{")
    assert "state.json is not JSON" in str(refused(folder))


def test_a_file_that_is_cut_short_is_named(tmp_path: Path, tokenizer: Path) -> None:
    folder = copied("text", tmp_path)
    path = folder / "data-00001-of-00002.arrow"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"data-00001-of-00002\.arrow is no Arrow stream, or cut short"):
        prepare(DataOptions(folder, tokenizer), VOCAB)


def test_the_package_that_reads_them_is_named_where_it_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nanoarrow", None)
    error = refused(copied("ids", tmp_path))
    assert "need a package" in str(error) and error.hint == "pip install nanoarrow==0.9.0"


def test_the_package_is_pinned_as_the_error_says() -> None:
    requirements = Path(__file__).resolve().parents[1] / "requirements.txt"
    assert "nanoarrow==0.9.0" in requirements.read_text().splitlines()
