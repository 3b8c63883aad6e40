"""Token stores: made once, whole or not at all, and found again as long as nothing has changed."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpdt.data import prepared, text
from fpdt.data.options import DataOptions
from fpdt.data.preparation import prepare
from fpdt.data.sources import open_corpus
from fpdt.data.tokenizer import Tokenizer
from fpdt.errors import DataError
from tests.data_files import documents_of
from tests.planned import ROOT
from tests.small_tokenizers import TEXT, VOCAB, save_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def rows(path: Path, count: int = 3) -> DataOptions:
    path.write_text("".join(f'{{"input_ids": [{i}, {i + 1}]}}\n' for i in range(count)))
    return DataOptions(path)


def test_a_source_is_prepared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = rows(tmp_path / "ids.jsonl")
    made = prepare(options, VOCAB)
    assert made is not None and made.parent == tmp_path / ".fpdt-cache"
    monkeypatch.setattr("fpdt.data.preparation.fill", lambda *_: pytest.fail("prepared again"))
    assert prepare(options, VOCAB) == made
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_what_changes_tokens_changes_the_store(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "the fox", "body": "the dog"}\n')
    other = save_tokenizer(tmp_path / "other", begins=True)
    made = {
        prepare(DataOptions(path, tokenizer, field), VOCAB)
        for tokenizer in (folder, other)
        for field in ("text", "body")
    }
    assert len(made) == 4


def test_the_fingerprint_is_that_of_the_tokens(tmp_path: Path) -> None:
    first, second = rows(tmp_path / "a.jsonl"), rows(tmp_path / "b.jsonl")
    os.utime(second.path, (1, 1))
    other = rows(tmp_path / "c.jsonl", 4)
    prints = []
    for options in (first, second, other):
        prepare(options, VOCAB)
        prints.append(open_corpus(options, VOCAB).fingerprint)
    assert prints[0].difference(prints[1].to_json()) is None
    assert prints[0].difference(prints[2].to_json()) is not None


def test_a_source_that_was_not_prepared_or_has_changed_since_is_named(tmp_path: Path) -> None:
    options = rows(tmp_path / "ids.jsonl")
    with pytest.raises(DataError, match=r"ids\.jsonl was not prepared") as caught:
        open_corpus(options, VOCAB)
    assert "python -m fpdt.prepare" in caught.value.hint
    prepare(options, VOCAB)
    size = options.path.stat().st_size
    rows(options.path, 4)
    with pytest.raises(DataError, match=rf"have changed since it was prepared: it had {size} bytes, now {size + 22}"):
        open_corpus(options, VOCAB)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("tokens.bin", b"123", "tokens.bin has 3 bytes, expected 24"), ("store.json", b"{", "is no token store")],
)
def test_a_damaged_store_is_named_and_may_be_deleted(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    options = rows(tmp_path / "ids.jsonl")
    made = prepare(options, VOCAB)
    assert made is not None
    (made / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_corpus(options, VOCAB)
    assert "delete" in caught.value.hint


def test_a_preparation_that_was_ended_leaves_nothing_for_long(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    options = DataOptions(rows(tmp_path / "ids.jsonl").path, cache=cache)
    abandoned, busy = cache / ".making-old", cache / ".making-busy"
    for made in (abandoned, busy):
        made.mkdir(parents=True)
        (made / "lock").touch()
    with (busy / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepare(options, VOCAB)
    assert not abandoned.exists() and busy.exists()


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = rows(tmp_path / "ids.jsonl")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepared, "_sync", full)
    with pytest.raises(DataError, match=r"cannot write tokens into .*: No space left") as caught:
        prepare(options, VOCAB)
    assert "--data-cache" in caught.value.hint
    assert list((tmp_path / ".fpdt-cache").iterdir()) == []


def test_another_preparation_may_be_quicker(tmp_path: Path) -> None:
    options = rows(tmp_path / "ids.jsonl")

    def fill(folder: Path) -> None:
        inner = prepare(options, VOCAB)
        assert inner is not None
        (folder / "tokens.bin").write_bytes(b"of the slower one")

    made = prepared.make_store(options, fill)
    assert documents_of(open_corpus(options, VOCAB)) == [[0, 1], [1, 2], [2, 3]]
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_text_is_one_document_whatever_the_size_of_its_pieces(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join([TEXT, "", "über " * 40, TEXT]), encoding="utf-8")
    expected = Tokenizer(folder).documents([path.read_text(encoding="utf-8")])
    for size in (97, 1 << 20):
        monkeypatch.setattr(text, "PIECE_BYTES", size)
        options = DataOptions(path, folder, cache=tmp_path / str(size))
        prepare(options, VOCAB)
        pieces = list(text.line_pieces(path))
        assert b"".join(pieces) == path.read_bytes() and max(map(len, pieces)) <= size
        assert (len(pieces) > 1) == (size == 97)
        if size > 97:
            assert documents_of(open_corpus(options, VOCAB)) == expected
    assert [piece.decode() for piece in pieces]


def test_a_line_longer_than_a_piece_is_cut_between_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PIECE_BYTES", 8)
    path = tmp_path / "long.txt"
    path.write_text("üäöß" * 10 + "\nab\n" + "x" * 20, encoding="utf-8")
    pieces = [piece.decode() for piece in text.line_pieces(path)]
    assert "".join(pieces) == path.read_text(encoding="utf-8")
    assert max(len(piece.encode()) for piece in pieces) <= 8


def test_text_that_is_not_utf8_is_named(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("über".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt is not UTF-8"):
        prepare(DataOptions(path, folder), VOCAB)


FASTA = ">first of them\nACGT\nAC\n\n>second\nGG"


@pytest.mark.parametrize("size", [3, 1 << 20])
def test_a_record_of_fasta_is_a_document(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PIECE_BYTES", size)
    path = tmp_path / "genome.fa"
    path.write_text(FASTA)
    prepare(DataOptions(path), VOCAB)
    corpus = open_corpus(DataOptions(path), VOCAB)
    assert [bytes(ids) for ids in documents_of(corpus)] == [b"ACGTAC", b"GG"]
    assert corpus.documents is not None and corpus.documents.name(1) == "record 2"
    # Bytes are ids modulo the vocabulary, as in any file without a tokenizer.
    assert documents_of(open_corpus(DataOptions(path), 64))[1] == [ord("G") % 64] * 2


def test_fasta_goes_through_a_tokenizer_where_one_is_given(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "genome.fasta"
    path.write_text(FASTA)
    prepare(DataOptions(path, folder), VOCAB)
    assert documents_of(open_corpus(DataOptions(path, folder), VOCAB)) == Tokenizer(folder).documents(["ACGTAC", "GG"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ACGT\n>first\nA", "begins with letters of no record"),
        (">first\nA\n>second\n>third\nC", "record 2 of .* no letters"),
    ],
)
def test_bad_fasta_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "genome.fa"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        prepare(DataOptions(path), VOCAB)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.txt.gz", {}, "cannot be read as it is"),
        ("a.json", {}, "cannot be read as it is"),
        ("a.parquet", {}, "cannot be read as it is"),
        ("a.npy", {"tokenizer": Path("t")}, "has token ids already"),
        ("a.npy", {"dtype": "uint16"}, "--data-dtype is for a .bin"),
        ("a.txt", {"field": "text"}, "--data-field is for rows"),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path: Path, name: str, options: dict[str, Any], message: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"1234")
    with pytest.raises(DataError, match=message) as caught:
        prepare(DataOptions(path, **options), VOCAB)
    assert caught.value.hint


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    environment.pop("FPDT_CONTROLLER_PID", None)
    run = [sys.executable, "-m", "fpdt.prepare", *arguments]
    return subprocess.run(run, env=environment, capture_output=True, text=True, check=False, timeout=600)


def test_the_command_prepares_checks_and_says_what_it_found(tmp_path: Path) -> None:
    options = rows(tmp_path / "ids.jsonl", 5)
    shape = ("--data", str(options.path), "--vocab-size", "300", "--seq-len", "4")
    done = command(*shape, "--packing", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["tokens"], found["documents"]) == (10, 5)
    assert Path(found["folder"]).is_dir() and "packed into 4 tokens" in found["cut"]
    done = command(*shape[:-1], "1", "--packing", "--json")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert (
        "line 1 of" in error["message"] and "has 2 tokens" in error["message"] and "--long-documents" in error["hint"]
    )
    done = command(*shape[:2], "--vocab-size", "300", "--seq-len", "100")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "has 10 tokens, a sequence of seqLen=100 takes 101" in done.stderr and "hint: " in done.stderr
    assert command("--data", "x").returncode == 2


def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    """Of text in pieces, by the writer's own arrays: nothing is kept of a document but its number of tokens."""
    path = tmp_path / "genome.fa"
    path.write_bytes(b">one\n" + (b"ACGTACGTAC" * 8 + b"\n") * 200_000)
    script = (
        "import resource, sys; from pathlib import Path; from fpdt.data.options import DataOptions; "
        "from fpdt.data.preparation import prepare; import numpy; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "prepare(DataOptions(Path(sys.argv[1])), 300); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert int(done.stdout) * 1024 < path.stat().st_size // 2
    assert np.memmap(next((tmp_path / ".fpdt-cache").glob("*/tokens.bin")), dtype=np.uint8).shape == (16_000_000,)
