"""What the engine asks of a ds_config and of ZeRO, without starting DeepSpeed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from torch import nn

from fpdt.errors import PlanError
from fpdt.models.build import build_model
from fpdt.models.config import UnsupportedModelError
from fpdt.plan import Plan
from fpdt.run.engine import ConfigError, check_config, engine_config
from fpdt.run.kernels import masks_of, plan_kernels
from fpdt.run.program import LossScale
from fpdt.run.ranks import RankError, join_process_group
from fpdt.run.zero import GatheredLayersError, LayerWeights
from fpdt.testing.lion import Lion
from fpdt.testing.reference import make_optimizer
from tests.hand_plan import HandPlan
from tests.planned import MODEL, ZERO_3

STRICT = {"zero_optimization": {"stage": 3, "stage3_max_live_parameters": 0, "stage3_prefetch_bucket_size": 0}}


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Two replicas of two ranks."""
    hand = HandPlan({"zero_optimization": ZERO_3}, num_ranks=2, accumulation_steps=3)
    hand.overrides["numRanks"] = 4
    hand.overrides["run"]["dataParallelSize"] = 2
    hand.overrides["layout"]["sequenceGroups"] = [[0, 1], [2, 3]]
    return hand.build()


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
    scale = LossScale(world_size=4, accumulation_steps=3, loss_scale=8.0, weight_sum=100.0)
    # DeepSpeed: sum over ranks of (loss / accumulation steps) / world, times its scale; per micro-step.
    assert scale.factor * scale.upstream / scale.world_size == pytest.approx(8.0 / 100)
    assert scale.gradient_factor == pytest.approx(8.0 * 4 / 100)


class FakeHandle:
    """Of an all-gather, or of ZeRO's prefetch."""

    def __init__(self, weights: list[FakeWeight]) -> None:
        self.weights = weights
        self.num_waits = 0

    def wait(self) -> None:
        self.num_waits += 1
        for weight in self.weights:
            weight.ds_status = ZeroParamStatus.AVAILABLE


@dataclass(eq=False)
class FakeWeight:
    ds_numel: int
    ds_status: Any = ZeroParamStatus.NOT_AVAILABLE
    ds_persist: bool = False
    ds_secondary_tensor: None = None
    handles: list[FakeHandle] = field(default_factory=list)
    partitioned: list[list[FakeWeight]] = field(default_factory=list)

    def all_gather_coalesced(self, params: list[FakeWeight]) -> FakeHandle:
        for weight in params:
            assert weight.ds_status == ZeroParamStatus.NOT_AVAILABLE
            weight.ds_status = ZeroParamStatus.INFLIGHT
        self.handles.append(FakeHandle(params))
        return self.handles[-1]

    def partition(self, param_list: list[FakeWeight], has_been_updated: bool) -> None:
        assert not has_been_updated
        self.partitioned.append(param_list)
        for weight in param_list:
            assert weight.ds_status == ZeroParamStatus.AVAILABLE
            weight.ds_status = ZeroParamStatus.NOT_AVAILABLE


@dataclass(eq=False)
class FakeLayer:
    weights: list[FakeWeight] = field(default_factory=lambda: [FakeWeight(10), FakeWeight(2)])

    def parameters(self) -> list[FakeWeight]:
        return self.weights

    @property
    def statuses(self) -> list[str]:
        return [weight.ds_status.name for weight in self.weights]


def fake_weights(config: Any) -> tuple[list[FakeLayer], LayerWeights, dict[FakeWeight, FakeHandle]]:
    layers, model = [FakeLayer(), FakeLayer()], nn.Module()
    registry: dict[FakeWeight, FakeHandle] = {}
    model.ds_inflight_param_registry = registry  # type: ignore[assignment]
    return layers, LayerWeights(model, layers, config), registry  # type: ignore[arg-type]


def test_a_gather_goes_on_until_somebody_needs_its_weights() -> None:
    layers, weights, _ = fake_weights(STRICT)
    weights.gather(1)
    assert layers[1].statuses == ["INFLIGHT"] * 2
    (handle,) = layers[1].weights[0].handles
    weights.acquire(0)
    assert handle.num_waits == 0
    weights.acquire(1)
    weights.acquire(1)
    assert handle.num_waits == 1 and layers[1].statuses == ["AVAILABLE"] * 2
    weights.release(1)
    assert layers[1].statuses == ["NOT_AVAILABLE"] * 2 and layers[0].statuses == ["NOT_AVAILABLE"] * 2


def test_a_release_leaves_to_zero_what_zero_gathered() -> None:
    layers, weights, registry = fake_weights(STRICT)
    prefetched, held = layers[0].weights[0], layers[0].weights[1]
    prefetched.ds_status = ZeroParamStatus.INFLIGHT
    registry[prefetched] = FakeHandle([prefetched])
    weights.gather(0)
    weights.acquire(0)
    assert registry == {} and layers[0].statuses == ["AVAILABLE"] * 2
    weights.release(0)
    assert layers[0].statuses == ["AVAILABLE", "NOT_AVAILABLE"]
    assert held.partitioned == [[held]] and prefetched.partitioned == []


def test_weights_that_zero_holds_are_neither_gathered_nor_dropped() -> None:
    layers, weights, _ = fake_weights(STRICT)
    for weight in layers[0].weights:
        weight.ds_status = ZeroParamStatus.AVAILABLE
    weights.gather(0)
    weights.release(0)
    assert layers[0].statuses == ["AVAILABLE"] * 2


def test_after_an_error_nobody_waits_and_what_is_whole_goes() -> None:
    layers, weights, _ = fake_weights(STRICT)
    for layer in range(2):
        weights.gather(layer)
    weights.acquire(0)
    weights.abandon()
    assert layers[0].statuses == ["NOT_AVAILABLE"] * 2
    assert layers[1].statuses == ["INFLIGHT"] * 2
    weights.gather(1)
    weights.acquire(1)
    weights.release(1)
    assert layers[1].statuses == ["NOT_AVAILABLE"] * 2


def test_no_other_layer_may_be_gathered_beyond_what_the_config_allows() -> None:
    layers, weights, _ = fake_weights(STRICT)
    layers[0].weights[0].ds_status = ZeroParamStatus.AVAILABLE
    weights.check_others(0)
    with pytest.raises(GatheredLayersError, match=r"while layer 1 runs, ZeRO-3 holds 10 .* of layers \[0\]"):
        weights.check_others(1)
    layers[0].weights[0].ds_persist = True
    weights.check_others(1)


def test_gathered_layers_within_the_configs_limit_are_fine() -> None:
    layers, weights, _ = fake_weights({"zero_optimization": {"stage": 3, "stage3_max_live_parameters": 100}})
    layers[0].weights[0].ds_status = ZeroParamStatus.AVAILABLE
    weights.check_others(1)


def test_weights_are_always_whole_below_stage_3() -> None:
    _, weights, _ = fake_weights({"zero_optimization": {"stage": 2}})
    weights.gather(0)
    weights.acquire(0)
    weights.release(0)
    weights.abandon()
    weights.check_others(1)


def test_every_process_starts_from_the_same_weights() -> None:
    def build(seed: int, dtype: torch.dtype) -> Any:
        return build_model(MODEL, seed, dtype, layers="model.layers", with_buffers=True)

    single = build(3, torch.float32).state_dict()
    half = build(3, torch.bfloat16).state_dict()
    other = build(4, torch.float32).state_dict()
    assert all(torch.equal(half[name], weight.bfloat16()) for name, weight in single.items())
    assert not torch.equal(other["lm_head.weight"], single["lm_head.weight"])
    assert build(3, torch.bfloat16).model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("model_type", ["gpt9", "vit"])
def test_another_model_type_is_refused(model_type: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"no language model of model_type '{model_type}'"):
        build_model({"model_type": model_type}, 0, torch.float32, layers="model.layers")


def test_the_reference_makes_deepspeeds_optimizer() -> None:
    weights = [nn.Parameter(torch.zeros(1))]
    options = {"lr": 0.5, "torch_adam": True}
    adamw = make_optimizer({"optimizer": {"type": "AdamW", "params": options}}, weights)
    assert (type(adamw), adamw.defaults["lr"]) == (torch.optim.AdamW, 0.5)
    plain = make_optimizer({"optimizer": {"type": "Adam", "params": {"adam_w_mode": False}}}, weights)
    assert type(plain) is torch.optim.Adam
    assert type(make_optimizer({"optimizer": {"type": "Lion"}}, weights)) is Lion
    with pytest.raises(ValueError, match="no optimizer 'Lamb'"):
        make_optimizer({"optimizer": {"type": "Lamb"}}, weights)


def test_a_wrong_number_of_ranks_is_refused(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RankError, match="the plan is for 4 ranks, WORLD_SIZE is 3"):
        join_process_group(plan)


def test_kernels_are_obeyed_or_refused_by_name() -> None:
    hand = HandPlan({"zero_optimization": {"stage": 0}})
    kernels = plan_kernels(hand.build())
    assert (kernels.attn.name, kernels.attn_bwd.name) == ("cpu_flash", "cpu_flash")
    hand.kernels["attnBwd"] = "flash9"
    with pytest.raises(PlanError, match="names the kernel 'flash9' for attnBwd, this worker has reference"):
        plan_kernels(hand.build())
    hand.kernels["attnBwd"] = "reference"
    assert plan_kernels(hand.build()).attn_bwd.name == "reference"
    hand.attributes[hand.full] = {"mask": {"kind": "window", "window": 7}}
    assert masks_of(hand.build(), "attn") == {("square", None), ("window", 7)}
    with pytest.raises(PlanError, match="the kernel 'cpu_flash' for attn, which cannot do its mask 'window'") as caught:
        plan_kernels(hand.build())
    assert "reference" in caught.value.hint and "cpu_flash" not in caught.value.hint
