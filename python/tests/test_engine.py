"""What the engine asks of a ds_config and of ZeRO, without starting DeepSpeed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from torch import nn

from fpdt.models import UnsupportedModelError
from fpdt.models.hf import build_model
from fpdt.plan import Plan, load_plan
from fpdt.run.engine import ConfigError, check_config, engine_config
from fpdt.run.program import LossScale
from fpdt.run.ranks import RankError, join_process_group
from fpdt.run.zero import GatheredLayersError, LayerWeights
from fpdt.testing.faults import InjectedFaultError, Leak, Sleep, Stop, leak_per_call, parse_fault, slow_handlers
from fpdt.testing.reference import make_optimizer
from tests.planned import MODEL, make_plan

STRICT = {"zero_optimization": {"stage": 3, "stage3_max_live_parameters": 0, "stage3_prefetch_bucket_size": 0}}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    options = ["--gpus", "4", "--sequence-parallel", "2", "--data-parallel", "2"]
    return load_plan(make_plan(tmp_path_factory.mktemp("plan"), *options, accumulation_steps=3))


def test_deepspeed_counts_every_rank_as_data_parallel(plan: Plan) -> None:
    check_config(plan)
    config = engine_config(plan)
    assert (config["train_batch_size"], config["gradient_accumulation_steps"]) == (12, 3)
    assert config["zero_optimization"] == plan.deepspeed["zero_optimization"]


def test_a_config_of_another_dtype_or_stage_is_refused(plan: Plan) -> None:
    with pytest.raises(ConfigError, match=r"dtype is float32 but ds_config has bf16.enabled=true"):
        check_config(replace(plan, deepspeed={**plan.deepspeed, "bf16": {"enabled": True}}))
    with pytest.raises(ConfigError, match="ZeRO stage is 3, ds_config's is 1"):
        check_config(replace(plan, deepspeed={"zero_optimization": {"stage": 1}}))


def test_the_loss_of_a_rank_makes_deepspeeds_mean_the_mean_over_tokens() -> None:
    scale = LossScale(world_size=4, accumulation_steps=3, static_scale=8.0, num_valid=100)
    # DeepSpeed: sum over ranks of (loss / accumulation steps) / world, times its scale; per micro-step.
    assert scale.factor * scale.upstream / scale.world_size == pytest.approx(8.0 / 100)
    assert scale.gradient_factor == pytest.approx(8.0 * 4 / 100)


@dataclass(eq=False)
class FakeWeight:
    ds_numel: int
    ds_status: Any = ZeroParamStatus.NOT_AVAILABLE
    ds_persist: bool = False


@dataclass(eq=False)
class FakeLayer:
    weights: list[FakeWeight] = field(default_factory=lambda: [FakeWeight(10), FakeWeight(2)])

    def parameters(self) -> list[FakeWeight]:
        return self.weights


def fake_weights(config: Any) -> tuple[list[FakeLayer], LayerWeights]:
    layers = [FakeLayer(), FakeLayer()]
    return layers, LayerWeights(nn.Module(), layers, config)  # type: ignore[arg-type]


def test_no_other_layer_may_be_gathered_beyond_what_the_config_allows() -> None:
    layers, weights = fake_weights(STRICT)
    layers[0].weights[0].ds_status = ZeroParamStatus.AVAILABLE
    weights.check_others(0)
    with pytest.raises(GatheredLayersError, match=r"while layer 1 runs, ZeRO-3 holds 10 .* of layers \[0\]"):
        weights.check_others(1)
    layers[0].weights[0].ds_persist = True
    weights.check_others(1)


def test_gathered_layers_within_the_configs_limit_are_fine() -> None:
    layers, weights = fake_weights({"zero_optimization": {"stage": 3, "stage3_max_live_parameters": 100}})
    layers[0].weights[0].ds_status = ZeroParamStatus.AVAILABLE
    weights.check_others(1)


def test_weights_are_always_whole_below_stage_3() -> None:
    _, weights = fake_weights({"zero_optimization": {"stage": 2}})
    weights.gather(0)
    weights.release(0)
    weights.check_others(1)


def test_every_process_starts_from_the_same_weights() -> None:
    single = build_model(MODEL, 3, torch.float32).state_dict()
    half = build_model(MODEL, 3, torch.bfloat16).state_dict()
    other = build_model(MODEL, 4, torch.float32).state_dict()
    assert all(torch.equal(half[name], weight.bfloat16()) for name, weight in single.items())
    assert not torch.equal(other["lm_head.weight"], single["lm_head.weight"])
    rotary = build_model(MODEL, 3, torch.bfloat16).model.rotary_emb.inv_freq
    assert isinstance(rotary, torch.Tensor)
    assert rotary.dtype == torch.float32


def test_another_model_type_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="gpt2"):
        build_model({"model_type": "gpt2"}, 0, torch.float32)


def test_the_reference_makes_deepspeeds_optimizer() -> None:
    weights = [nn.Parameter(torch.zeros(1))]
    options = {"lr": 0.5, "torch_adam": True}
    adamw = make_optimizer({"optimizer": {"type": "AdamW", "params": options}}, weights)
    assert (type(adamw), adamw.defaults["lr"]) == (torch.optim.AdamW, 0.5)
    plain = make_optimizer({"optimizer": {"type": "Adam", "params": {"adam_w_mode": False}}}, weights)
    assert type(plain) is torch.optim.Adam
    with pytest.raises(ValueError, match="no optimizer 'Lion'"):
        make_optimizer({"optimizer": {"type": "Lion"}}, weights)


def test_a_wrong_number_of_ranks_is_refused(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RankError, match="the plan is for 4 ranks, WORLD_SIZE is 3"):
        join_process_group(plan)


def test_faults_are_parsed_and_others_refused_by_form() -> None:
    assert parse_fault("") is None
    assert parse_fault("leak:100") == Leak(100)
    assert parse_fault("sleep:attn:0.05") == Sleep("attn", 0.05)
    assert parse_fault("kill:1:2") == Stop(kill=True, rank=1, step=2)
    for text in ("boom", "leak:many", "kill:1", "sleep:attn"):
        with pytest.raises(ValueError, match="expected leak:BYTES"):
            parse_fault(text)


def test_faults_hit_only_their_target() -> None:
    stop = parse_fault("raise:1:2")
    assert isinstance(stop, Stop)
    stop.before_step(0, 2)
    stop.before_step(1, 1)
    with pytest.raises(InjectedFaultError, match=r"rank 1 .* step 2"):
        stop.before_step(1, 2)
    calls: list[str] = []
    table = slow_handlers({"a": lambda _: calls.append("a"), "b": lambda _: calls.append("b")}, Sleep("a", 0.0))
    table["a"](None)  # type: ignore[arg-type]
    assert calls == ["a"]
    with pytest.raises(ValueError, match="no handler of kind c"):
        slow_handlers(table, Sleep("c", 0.1))
    leak_per_call(None)()
