"""Which models `fpdt.stream` takes, and what it leaves behind; without ranks and engines."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import fpdt
from fpdt.errors import ArenaError, FpdtError, PlanError
from fpdt.loop.stream import StreamError
from fpdt.models.build import build_model
from fpdt.plan import Plan
from fpdt.run.engine import ConfigError
from fpdt.run.parameters import ParameterError
from tests.hand_plan import HandPlan
from tests.planned import make_plan

STAGE_0 = {"zero_optimization": {"stage": 0}}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return HandPlan(STAGE_0).build()


def built(plan: Plan) -> nn.Module:
    config = plan.model["hfConfig"]
    return build_model(config, 0, torch.float32, layers=plan.code.layers, with_buffers=True).eval()


def replaced(model: nn.Module) -> Iterator[str]:
    return (name for name, module in model.named_modules() if "forward" in module.__dict__)


def test_without_labels_forwards_are_hugging_faces_own(plan: Plan) -> None:
    model, ids = built(plan), torch.arange(12)[None]
    signature = inspect.signature(model.forward)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        streamed = fpdt.stream(model, plan)
        assert set(replaced(model)) == {"", "model.embed_tokens", "model.layers.0", "model.layers.1", "lm_head"}
        assert inspect.signature(model.forward) == signature
        assert torch.equal(model(ids).logits, expected)
        assert model.generate(ids, max_new_tokens=3, do_sample=False).shape == (1, 15)  # type: ignore[operator]
    streamed.unstream()
    assert list(replaced(model)) == []


def test_a_peft_model_is_streamed_where_the_plan_has_its_adapters(tmp_path: Path) -> None:
    lora = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "up_proj"]}
    (tmp_path / "lora.json").write_text(json.dumps(lora))
    path = make_plan(tmp_path, "--lora", "lora.json", zero={"stage": 0})
    model = get_peft_model(built(fpdt.load_plan(path)), LoraConfig(**lora))  # type: ignore[arg-type]
    streamed = fpdt.stream(model, path)
    assert streamed.model is model.get_base_model()
    with pytest.raises(ConfigError, match="no DeepSpeed engine around it"):
        model(input_ids=torch.zeros(1, 96, dtype=torch.int64), labels=torch.zeros(1, 96, dtype=torch.int64))
    streamed.unstream()
    with pytest.raises(ParameterError, match="the model has no module") as caught:
        fpdt.stream(nn.Linear(2, 2), path)
    assert isinstance(caught.value, FpdtError)
    assert "plan again" in caught.value.hint


def test_what_cannot_be_streamed_leaves_the_model_as_it_is(plan: Plan, tmp_path: Path) -> None:
    model = built(plan)
    with pytest.raises(PlanError, match="cannot read the plan"):
        fpdt.stream(model, tmp_path / "none.json")
    packing = HandPlan(STAGE_0)
    packing.overrides["run"]["packing"] = True
    disk = HandPlan(STAGE_0)
    pools = [pool.model_dump(by_alias=True) for pool in plan.header.pools]
    disk.overrides["pools"] = [{**pool, "bytes": 4096} if pool["kind"] == "file" else pool for pool in pools]
    for hand, error, message in (
        (packing, StreamError, "the plan is for packed documents"),
        (disk, ArenaError, "in the pool disk, a file, and no folder"),
    ):
        with pytest.raises(error, match=message):
            fpdt.stream(model, hand.build())
    assert list(replaced(model)) == []
    streamed = fpdt.stream(model, plan)
    with pytest.raises(StreamError, match="the model is streamed already"):
        fpdt.stream(model, plan)
    streamed.unstream()
