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
from fpdt.models.export import FolderWriter
from fpdt.models.weights import WeightFolder, WeightsError, check_vocabulary
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
    (folder / "model.safetensors.index.json").unlink()


def truncate(folder: Path) -> None:
    content = first_file(folder).read_bytes()
    first_file(folder).write_bytes(content[: len(content) // 2])


def only_bin(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def index_of_more(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.layers.9.mlp.up_proj.weight"] = first_file(folder).name
    index.write_text(json.dumps(content))


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
        lambda one: (one / "model.safetensors.index.json").write_text("{"),
        "has no weight_map",
        "copy the file again",
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


def test_a_weight_too_many_is_named(folder: Path) -> None:
    save_file({"model.layers.0.extra.weight": torch.zeros(2)}, folder / "zz.safetensors")
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(WeightsError, match=r"has a weight that the model lacks: model\.layers\.0\.extra\.weight"):
        read(folder)


def test_buffers_of_older_checkpoints_are_left_out(folder: Path) -> None:
    save_file({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(2)}, folder / "zz.safetensors")
    (folder / "model.safetensors.index.json").unlink()
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


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path) -> None:
    target = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt), FolderWriter(target, 64):
        assert [path.name for path in tmp_path.iterdir()] == ["new.writing"]
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_export_does_not_overwrite_and_asks_for_its_bytes_first(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is there and not empty"):
        FolderWriter(folder, 64)
    with pytest.raises(WeightsError, match=rf"takes {1 << 60} bytes, .* has \d+ free"):
        FolderWriter(tmp_path / "new", 1 << 60)
    (tmp_path / "old.writing").mkdir()
    with pytest.raises(WeightsError, match=r"old.writing is left of an export that was killed"):
        FolderWriter(tmp_path / "old", 64)


def test_a_disk_that_fills_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fpdt.models.export.save_file", full)
    model = of_transformers(MODEL, 0)
    with (
        pytest.raises(WeightsError, match=r"cannot write .*No space left") as caught,
        FolderWriter(tmp_path / "new", 64) as writer,
    ):
        writer.add(model, "lm_head.weight", torch.zeros(4))
        writer.finish("{}", None)
    assert "free space there" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
