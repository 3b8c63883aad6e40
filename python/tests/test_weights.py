"""Folders of weights that are not what a model needs: each says what to change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor

from fpdt.models.build import build_model
from fpdt.models.export import ModelWriter
from fpdt.models.weights import INDEX, WeightFolder, WeightsError, check_vocabulary
from tests.planned import MODEL
from tests.test_build import of_transformers, weights

Bend = Callable[[Path], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In four files and an index."""
    folder = tmp_path_factory.mktemp("sound")
    of_transformers(MODEL, 0).save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def read(folder: Path, dtype: torch.dtype = torch.float32) -> Mapping[str, Tensor]:
    with WeightFolder(folder) as opened:
        return weights(build_model(MODEL, 0, dtype, layers="model.layers", folder=opened))


def first_file(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


def change(folder: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    """Of the folder's first file; the index goes, so that names are those of the files."""
    tensors = load_file(first_file(folder))
    edit(tensors)
    save_file(tensors, first_file(folder))
    (folder / INDEX).unlink()


def truncate(folder: Path) -> None:
    content = first_file(folder).read_bytes()
    first_file(folder).write_bytes(content[: len(content) // 2])


def only_bin(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def index_of_more(folder: Path) -> None:
    index = folder / INDEX
    content = json.loads(index.read_text())
    content["weight_map"]["model.layers.9.mlp.up_proj.weight"] = first_file(folder).name
    index.write_text(json.dumps(content))


def weight_map_of(content: object) -> Bend:
    return lambda folder: (folder / INDEX).write_text(json.dumps({"weight_map": content}))


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def in_two_files(folder: Path) -> None:
    shutil.copy(first_file(folder), folder / "zz.safetensors")
    (folder / INDEX).unlink()


def under_two_names(folder: Path) -> None:
    """Of the checkpoint, and of one of the base model alone."""
    with WeightFolder(folder) as opened:
        embedding = opened.tensor("model.embed_tokens.weight")
    save_file({"embed_tokens.weight": embedding + 1}, folder / "zz.safetensors")
    (folder / INDEX).unlink()


def half_a_row(tensors: dict[str, Tensor]) -> None:
    name = min(tensors)
    tensors[name] = tensors[name][:-1].clone()


def quantised(tensors: dict[str, Tensor]) -> None:
    name = min(tensors)
    tensors[name] = tensors[name].to(torch.int8)


def renamed(tensors: dict[str, Tensor]) -> None:
    name = min(tensors)
    tensors[f"other.{name}"] = tensors.pop(name)


BAD: Mapping[str, tuple[Bend, str, str]] = {
    "missing folder": (shutil.rmtree, "no folder", "config.json and safetensors"),
    "only pickles": (only_bin, r"has no safetensors, only pytorch_model.bin", "save_pretrained"),
    "missing shard": (lambda one: first_file(one).unlink(), "names model-00001-of-.* which is not in", "copy"),
    "truncated": (truncate, r"model-00001-of-.* cannot be read", "copy it again"),
    "not safetensors": (lambda one: first_file(one).write_text("<html>"), "cannot be read", "copy it again"),
    "index is no JSON": (
        lambda one: (one / INDEX).write_text("{"),
        "has no weight_map",
        "copy the file again",
    ),
    "weight_map is a list": (weight_map_of(["a"]), "the weight_map of .* does not give each weight", "copy the file"),
    "weight_map of numbers": (
        weight_map_of({"a": 1}),
        "the weight_map of .* does not give each weight",
        "copy the file",
    ),
    "index is a folder": (
        lambda one: become_folder(one / INDEX),
        rf"{INDEX} cannot be read: Is a directory",
        "this user may read it",
    ),
    "file is a folder": (
        lambda one: become_folder(first_file(one)),
        r"model-00001-of-.* cannot be read: Is a directory",
        "this user may read it",
    ),
    "in two files": (in_two_files, r" is in model-00001-of-\S+ and in zz.safetensors of ", "one checkpoint"),
    "under two names": (
        under_two_names,
        r"embed_tokens.weight in zz.safetensors and model.embed_tokens.weight in model-0000\d-of-\S+ of .*"
        r" are both the model's model.embed_tokens.weight",
        "leave out",
    ),
    "index names more": (index_of_more, "names model.layers.9.mlp.up_proj.weight, which no file", "copy it again"),
    "another shape": (lambda one: change(one, half_a_row), r"has shape \[\d+, \d+\], the model's is", "config.json"),
    "quantised": (lambda one: change(one, quantised), "is I8, not one of F64, F32, F16, BF16", "unquantised"),
    "another name": (
        lambda one: change(one, renamed),
        "lacks a weight of the model: ",
        "config.json",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_is_refused_with_what_to_do(name: str, folder: Path) -> None:
    bend, message, hint = BAD[name]
    bend(folder)
    with pytest.raises(WeightsError, match=message) as caught:
        read(folder)
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", [INDEX, "model.safetensors", "tokenizer.json"])
def test_a_file_that_this_user_may_not_read_is_not_called_broken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return sound(path, *args, **options)

    (tmp_path / name).write_text("")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WeightsError, match=rf"{name} cannot be read: Permission denied$") as caught:
        check_vocabulary(tmp_path, 8)
        read(tmp_path)
    assert "this user may read it" in caught.value.hint


def test_a_weight_too_many_is_named(folder: Path) -> None:
    save_file({"model.layers.0.extra.weight": torch.zeros(2)}, folder / "zz.safetensors")
    (folder / INDEX).unlink()
    with pytest.raises(WeightsError, match=r"has a weight that the model lacks: model\.layers\.0\.extra\.weight"):
        read(folder)


def test_buffers_of_older_checkpoints_are_left_out(folder: Path) -> None:
    save_file({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(2)}, folder / "zz.safetensors")
    (folder / INDEX).unlink()
    assert read(folder)


def test_weights_come_in_the_dtype_of_the_run(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({name: one.half() for name, one in tensors.items()}))
    full, half = read(folder), read(folder, torch.bfloat16)
    assert {one.dtype for one in half.values()} == {torch.bfloat16}
    assert all(torch.equal(half[name], one.bfloat16()) for name, one in full.items())


def test_a_checkpoint_of_the_base_model_is_read_where_the_head_is_tied(tmp_path: Path) -> None:
    tied = {**MODEL, "tie_word_embeddings": True}
    theirs: Any = of_transformers(tied, 0)
    theirs.model.save_pretrained(tmp_path)
    with WeightFolder(tmp_path) as opened:
        ours = weights(build_model(tied, 0, torch.float32, layers="model.layers", folder=opened))
    assert all(torch.equal(one, weights(theirs)[name]) for name, one in ours.items())


def write_tokenizer(folder: Path, num_tokens: int) -> None:
    vocabulary = {f"t{number}": number for number in range(num_tokens)}
    Tokenizer(WordLevel(vocabulary, unk_token="t0")).save(str(folder / "tokenizer.json"))


def test_a_tokenizer_with_tokens_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    check_vocabulary(tmp_path, 8)
    write_tokenizer(tmp_path, 8)
    check_vocabulary(tmp_path, 8)
    with pytest.raises(WeightsError, match=r"has token 7 \('t7'\), the model's vocab_size is 7"):
        check_vocabulary(tmp_path, 7)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match=r"tokenizer.json cannot be read"):
        check_vocabulary(tmp_path, 8)


def writer_of(folder: Path, num_bytes: int = 64) -> ModelWriter:
    return ModelWriter(folder, num_bytes, MODEL, "float32", None)


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path) -> None:
    target = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt), writer_of(target):
        assert [path.name for path in tmp_path.iterdir()] == ["new.writing"]
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_export_does_not_overwrite_and_asks_for_its_bytes_first(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is there and not empty"):
        writer_of(folder)
    with pytest.raises(WeightsError, match=rf"takes {1 << 60} bytes, .* has \d+ free"):
        writer_of(tmp_path / "new", 1 << 60)
    (tmp_path / "old.writing").mkdir()
    with pytest.raises(WeightsError, match=r"old.writing is left of an export that was killed"):
        writer_of(tmp_path / "old")


def test_a_disk_that_fills_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fpdt.models.export.save_file", full)
    model = of_transformers(MODEL, 0)
    with (
        pytest.raises(WeightsError, match=r"cannot write .*No space left") as caught,
        writer_of(tmp_path / "new") as writer,
    ):
        writer.add(model, "lm_head.weight", torch.zeros(4))
        writer.finish(model)
    assert "free space there" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
