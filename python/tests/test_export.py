"""Folders that are written: `from_pretrained` loads them, and the model is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fpdt.export import export_plan
from fpdt.models import export
from fpdt.models.build import build_model
from fpdt.models.export import ModelWriter
from fpdt.models.weights import WeightFolder
from tests.families import families
from tests.family_configs import CONFIGS
from tests.planned import MODEL, make_plan
from tests.test_build import of_transformers, weights


def names_in(folder: Path) -> set[str]:
    return {name for path in folder.glob("*.safetensors") for name in load_file(path)}


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_loads_what_was_written(name: str, tmp_path: Path) -> None:
    """With its logits, and the files have the names that transformers would have given."""
    family = families()[name]
    model = build_model(family.config, 0, torch.float32, layers=family.code.layers, with_buffers=True).eval()
    ids = torch.arange(6)[None] % int(family.config["vocab_size"])
    size = 4 * family.parameters.num_model_parameters
    with ModelWriter(tmp_path / "ours", size, family.config, "float32", None) as writer:
        for key, weight in model.named_parameters():
            writer.add(model, key, weight.detach().clone())
        writer.finish(model)
    load: Any = AutoModelForCausalLM.from_pretrained
    loaded = load(tmp_path / "ours", attn_implementation="eager").eval()
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    assert writer.num_bytes == size
    theirs = of_transformers(family.config, 0)
    theirs.save_pretrained(tmp_path / "theirs")
    assert names_in(tmp_path / "ours") == names_in(tmp_path / "theirs")


def test_the_model_of_a_plan_goes_out_and_in_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its seed, in several files, then read from there in another plan's dtype; the tokenizer comes along."""
    monkeypatch.setattr(export, "MAX_SHARD_BYTES", 16_000)
    path = make_plan(tmp_path)
    made = export_plan(str(path), str(tmp_path / "one"), None)
    ours = weights(build_model(MODEL, 0, torch.float32, layers="model.layers"))
    assert made == {"numWeights": len(ours), "bytes": sum(one.nbytes for one in ours.values())}
    assert len(list((tmp_path / "one").glob("*.safetensors"))) > 1
    with WeightFolder(tmp_path / "one") as folder:
        assert all(torch.equal(folder.tensor(name), one) for name, one in ours.items())
    (tmp_path / "one" / "tokenizer_config.json").write_text("{}")
    (tmp_path / "one" / "old.bin").write_bytes(b"weights")
    half = make_plan(tmp_path, "--dtype", "bfloat16")
    export_plan(str(half), str(tmp_path / "two"), str(tmp_path / "one"))
    files = {one.name for one in (tmp_path / "two").iterdir()}
    assert files == {"config.json", "model.safetensors.index.json", "tokenizer_config.json"} | {
        one for one in files if one.endswith(".safetensors")
    }
    for file in (tmp_path / "two").glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                assert torch.equal(opened.get_tensor(name), ours[name].bfloat16())
    assert json.loads((tmp_path / "two" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_plan_with_adapters_goes_out_without_them(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "target_modules": "all-linear"}))
    path = make_plan(tmp_path, "--lora", "adapter_config.json")
    made = export_plan(str(path), str(tmp_path / "out"), None)
    ours = weights(build_model(MODEL, 0, torch.float32, layers="model.layers"))
    assert made["numWeights"] == len(ours)
    with WeightFolder(tmp_path / "out") as folder:
        assert folder.names == ours.keys()
        assert all(torch.equal(folder.tensor(name), one) for name, one in ours.items())


def test_context_extension_is_carried_into_the_exported_config(tmp_path: Path) -> None:
    path = make_plan(tmp_path, "--rope-theta", "5e5", "--rope-scaling", "yarn:4")
    export_plan(str(path), str(tmp_path / "out"), None)
    load: Any = AutoModelForCausalLM.from_pretrained
    config = load(tmp_path / "out").config
    assert (config.max_position_embeddings, config.rope_parameters["rope_theta"]) == (4 * 4096, 5e5)
    wanted = {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 4096}
    assert wanted.items() <= config.rope_parameters.items()
