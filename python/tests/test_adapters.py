"""Adapters that are put into a model and written: peft's own, under its names, with the logits of the run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from fpdt.models.adapters import AdapterWriter, add_adapters
from fpdt.models.build import build_model
from fpdt.models.training import prepare
from fpdt.models.weights import WeightsError
from tests.families import families, randomize, token_ids, trained
from tests.family_configs import TRAININGS
from tests.planned import MODEL, make_plan, run_ranks, write_data

CASES = [name for name, case in TRAININGS.items() if "lora" in case]


def base_of(name: str) -> nn.Module:
    family = families()[name]
    return build_model(family.config, 0, torch.float32, layers=family.code.layers, with_buffers=True).eval()


def adapted(name: str) -> nn.Module:
    model, family = base_of(name), families()[name]
    prepare(model, family, family.lora, 0, torch.float32)
    return model


def write(model: nn.Module, folder: Path) -> None:
    weights = trained(model)
    with AdapterWriter(folder, sum(one.nbytes for one in weights.values()), None) as writer:
        for name, weight in model.named_parameters():
            if writer.takes(weight):
                writer.add(model, name, weight.detach())
        writer.finish(model)


@pytest.mark.parametrize("name", CASES)
def test_peft_loads_what_was_written_with_the_same_logits(name: str, tmp_path: Path) -> None:
    model, ids = adapted(name), token_ids(int(families()[name].config["vocab_size"]))[None]
    randomize(model)
    base = base_of(name)
    kept = {key.replace(".base_layer", ""): weight for key, weight in model.named_parameters() if "lora_" not in key}
    base.load_state_dict(kept, strict=False)
    write(model, tmp_path / "ours")
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "ours")).eval()
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("name", ["llama lora", "gpt2 lora"])
def test_files_are_those_that_peft_writes(name: str, tmp_path: Path) -> None:
    write(adapted(name), tmp_path / "ours")
    lora: Any = families()[name].lora
    get_peft_model(base_of(name), LoraConfig(**lora)).save_pretrained(str(tmp_path / "theirs"))
    ours, theirs = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("ours", "theirs"))
    assert {key: one.shape for key, one in ours.items()} == {key: one.shape for key, one in theirs.items()}
    read = [json.loads((tmp_path / folder / "adapter_config.json").read_text()) for folder in ("ours", "theirs")]
    for config in read:
        # Sets, in any order; and what only a model that was loaded by its name has.
        config["target_modules"] = sorted(config["target_modules"])
        del config["base_model_name_or_path"], config["auto_mapping"]
    assert read[0] == read[1]


@pytest.mark.parametrize("init", [True, False, "gaussian"])
def test_adapters_start_as_peft_s_do_from_seed_and_name_alone(init: bool | str) -> None:
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": init}
    models = [base_of("llama lora") for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        add_adapters(model, lora, seed, torch.float32)
    one, same, other = ({key: w for key, w in trained(model).items() if "lora_" in key} for model in models)
    assert len(one) == 8
    assert all(torch.equal(weight, same[key]) for key, weight in one.items())
    for key, weight in one.items():
        is_zero = "lora_B" in key and init is not False
        assert bool(weight.any()) != is_zero
        assert torch.equal(weight, other[key]) == is_zero
        if init != "gaussian" and not is_zero:
            # kaiming_uniform with a = sqrt(5): within 1 / sqrt(inputs), and reaching nearly there.
            bound = 1 / math.sqrt(weight.shape[1])
            assert 0.8 * bound < float(weight.abs().max()) <= bound
    values = [weight for key, weight in one.items() if "lora_A" in key]
    assert not torch.equal(values[0], values[1])


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("")
    with pytest.raises(WeightsError, match="is there and not empty"):
        AdapterWriter(tmp_path / "old", 0, None)


def test_a_link_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "new")
    with pytest.raises(WeightsError, match="is a link"):
        AdapterWriter(tmp_path / "link", 0, None)


@pytest.mark.full
def test_adapters_of_a_sharded_run_have_its_next_loss(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"r": 4, "lora_alpha": 400, "target_modules": "all-linear"})
    )
    plan = make_plan(tmp_path, "--gpus", "2", "--lora", "adapter_config.json")
    options = ["--plan", str(plan), "--data", str(write_data(tmp_path))]
    written = run_ranks(2, *options, "--steps", "2", "--export", str(tmp_path / "out"))
    longer = run_ranks(2, *options, "--steps", "3")
    assert [rank.code for rank in (*written, *longer)] == [0] * 4, written[0].err + longer[0].err
    tokens = torch.tensor([byte % MODEL["vocab_size"] for byte in (tmp_path / "data.txt").read_bytes()])[
        2 * 97 : 3 * 97
    ]
    base = build_model(MODEL, 0, torch.float32, layers="model.layers", with_buffers=True).eval()

    def loss_of(model: Any) -> float:
        with torch.no_grad():
            return float(functional.cross_entropy(model(input_ids=tokens[None, :-1]).logits[0], tokens[1:]))

    before = loss_of(base)
    after = loss_of(PeftModel.from_pretrained(base, str(tmp_path / "out")).eval())
    assert abs(after - longer[0].steps[2]["loss"]) < 2e-6
    assert abs(after - before) > 1e-5
