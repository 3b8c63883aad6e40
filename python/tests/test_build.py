"""Models built unit by unit: with the same weights everywhere, as transformers would make or load them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from fpdt.measure.memory import LiveBytes
from fpdt.models.build import build_model
from fpdt.models.config import config_of
from fpdt.models.weights import WeightFolder
from tests.families import families
from tests.family_configs import CONFIGS
from tests.planned import MODEL


def build(config: Any, seed: int = 0, dtype: torch.dtype = torch.float32, **options: Any) -> nn.Module:
    return build_model(config, seed, dtype, **{"layers": "model.layers", **options})


def of_transformers(config: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    make: Any = AutoModelForCausalLM.from_config
    return make(config_of({**config, "dtype": "float32"}))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_are_made_as_transformers_makes_them(name: str) -> None:
    """Of the same distribution: nothing is left out, tied weights are one, and constants are the same constants."""
    family = families()[name]
    theirs = weights(of_transformers(family.config, 0))
    model = build(family.config, layers=family.code.layers)
    ours, again = weights(model), weights(build(family.config, layers=family.code.layers))
    assert ours.keys() == theirs.keys()
    for key, weight in ours.items():
        assert torch.equal(weight, again[key])
        mean, std = float(theirs[key].detach().mean()), float(theirs[key].detach().std())
        found = weight.detach()
        if std == 0:
            assert torch.equal(found, theirs[key]), key
        else:
            # Six standard errors of a normal distribution's mean and deviation.
            bound = 6 * std / found.numel() ** 0.5
            assert abs(float(found.mean()) - mean) <= 2 * bound, key
            assert abs(float(found.std()) - std) <= 2 * bound, key


def test_a_weight_depends_on_its_name_and_the_seed_alone() -> None:
    short, long = (weights(build({**MODEL, "num_hidden_layers": count})) for count in (2, 3))
    assert all(torch.equal(long[name], weight) for name, weight in short.items())
    other = weights(build(MODEL, seed=1))
    assert not torch.equal(other["model.layers.0.mlp.up_proj.weight"], short["model.layers.0.mlp.up_proj.weight"])
    assert not torch.equal(short["model.layers.0.mlp.up_proj.weight"], short["model.layers.1.mlp.up_proj.weight"])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_of_transformers_is_read_as_transformers_reads_it(name: str, tmp_path: Path) -> None:
    family = families()[name]
    theirs = of_transformers(family.config, 1)
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = build(family.config, layers=family.code.layers, folder=WeightFolder(tmp_path))
    assert all(torch.equal(weight, weights(theirs)[key]) for key, weight in weights(model).items())


class Peaks:
    """Live bytes of a rank that shards: halves of every weight of a unit are kept."""

    def __init__(self) -> None:
        self.live = LiveBytes()
        self.units: list[int] = []
        self.shards: list[int] = []

    def shard(self, model: nn.Module, path: str) -> None:
        unit = model.get_submodule(path)
        sizes = [weight.nbytes for weight in unit.parameters() if weight.numel()]
        for weight in unit.parameters():
            weight.data = weight.data.flatten()[: weight.numel() // 2].clone()
        self.units.append(sum(sizes))
        self.shards.append(sum(weight.nbytes for weight in unit.parameters()))


def test_no_more_is_held_than_the_shards_and_the_largest_unit() -> None:
    peaks = Peaks()
    with peaks.live:
        model = build({**MODEL, "num_hidden_layers": 6}, shard=peaks.shard)
        assert peaks.live.live_bytes == sum(peaks.shards)
    held = [sum(peaks.shards[:number]) + unit for number, unit in enumerate(peaks.units)]
    # While a unit is sharded, one weight and its shard are there side by side.
    assert max(held) <= peaks.live.peak_bytes <= max(held) + max(peaks.shards)
    assert peaks.live.peak_bytes < sum(peaks.units) * 0.75
    del model


def test_weights_of_half_the_size_are_never_whole_in_the_full_one() -> None:
    live = LiveBytes()
    with live:
        model = build({**MODEL, "num_hidden_layers": 6}, dtype=torch.bfloat16)
        size = sum(weight.nbytes for weight in model.parameters())
        assert live.live_bytes == size
    layer = sum(weight.nbytes for weight in model.get_submodule("model.layers.0").parameters())
    ends = max(weight.nbytes for weight in model.parameters())
    assert live.peak_bytes <= size + 2 * max(layer, ends)
