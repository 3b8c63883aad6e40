"""A Llama's bindings against Hugging Face's decoder layer: post . attention . pre is its forward, gradients too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fpdt.attention import CAUSAL, backend_named
from fpdt.models import LayerBinding, check_complete, decoder_layers, rotary_of
from fpdt.models.training import freeze
from fpdt.run.parameters import ParameterError, WeightSlice, accumulate, cast_gradients
from tests.handler_calls import Caller, Group
from tests.model_code import PlannerError, planned_model, planned_models
from tests.tiny_models import (
    CPU,
    Tables,
    bound_engine,
    bound_layer,
    config_json,
    layer_forward,
    tables_of,
    tiny_config,
    tiny_llama,
)

ROWS = 24
BACKEND = backend_named("cpu_flash")
PRE = ["input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]


class Composed:
    """A layer on all rows at once: post(attention(pre(x))), and its reverse."""

    def __init__(self, layer: LayerBinding, x: Tensor, positions: Tensor) -> None:
        self.layer, self.x, self.positions = layer, x.detach(), positions
        self.call = Caller(Group(1).ranks()[0], None, layer)
        self.wgrad = torch.zeros(sum(weight.numel for weight in layer.weights))

    def pre(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v [rows, heads, d]."""
        q, k, v = (self.heads(name) for name in "qkv")
        self.call("pre", [self.x, self.positions], [q, k, v])
        return q, k, v

    def heads(self, name: str) -> Tensor:
        """Of q, k or v, not written yet."""
        attention: Any = self.layer.module.self_attn
        width = getattr(attention, f"{name}_proj").out_features
        return torch.full((ROWS, width // attention.head_dim, attention.head_dim), float("nan"), dtype=self.x.dtype)

    def forward(self) -> Tensor:
        q, k, v = self.qkv = self.pre()
        self.o, self.lse = BACKEND.forward(q, k, v, self.layer.attention, CAUSAL, 0, 0)
        y = torch.full_like(self.x, float("nan"))
        self.call("post", [self.x, self.o], [y])
        return y

    def backward(self, dy: Tensor) -> Tensor:
        """dx, after `forward`; adds the weight gradients to `wgrad`."""
        (q, k, v), dx, do = self.qkv, dy.clone(), torch.full_like(self.o, float("nan"))
        self.call("postBwd", [self.x, self.o], [do], [dx, self.wgrad])
        grads = BACKEND.backward(do, q, k, v, self.o, self.lse, self.layer.attention, CAUSAL, 0, 0)
        self.call("preBwd", [self.x, self.positions, *grads], [], [dx, self.wgrad])
        return dx


def composed(layer: LayerBinding, x: Tensor, positions: Tensor) -> Tensor:
    return Composed(layer, x, positions).forward()


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, dy = (torch.randn(ROWS, 32, generator=generator).to(dtype) for _ in range(2))
    return x.requires_grad_(), dy


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "no groups": {"num_key_value_heads": 4},
    "own head dim": {"head_dim": 16},
    "llama3 rope": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 512,
        }
    },
    "yarn rope": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 1024,
        }
    },
    "linear rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
}


@pytest.fixture(scope="module", autouse=True)
def planner_ran_once() -> None:
    """For all cases, and not once for each."""
    planned_models([config_json(tiny_config(**case)) for case in CASES.values()])


@pytest.mark.parametrize("case", list(CASES))
def test_layer_and_gradients_are_hugging_face_s(case: str) -> None:
    model = tiny_llama(**CASES[case])
    (x, dy), positions = inputs(torch.float32), torch.arange(ROWS) + 3000
    weights = dict(model.model.layers[0].named_parameters())
    expected = layer_forward(model, x, positions)
    expected_dx, *expected_grads = torch.autograd.grad(expected, [x, *weights.values()], dy)
    ours = Composed(bound_layer(model), x, positions)
    torch.testing.assert_close(ours.forward(), expected, rtol=1e-5, atol=1e-5)
    dx = ours.backward(dy)
    found = {weight.name: weight.view(ours.wgrad) for weight in ours.layer.weights}
    assert found.keys() == weights.keys()
    grads = [dx, *(found[name] for name in weights)]
    for grad, expected_grad in zip(grads, [expected_dx, *expected_grads], strict=True):
        assert (grad - expected_grad).abs().max() <= 5e-6 * max(1.0, float(expected_grad.abs().max()))


def test_bf16_layer_is_as_exact_as_hugging_face_s() -> None:
    x, _ = inputs(torch.bfloat16)
    positions = torch.arange(ROWS)
    model, exact = tiny_llama(torch.bfloat16), tiny_llama()
    for parameter, source in zip(exact.parameters(), model.parameters(), strict=True):
        parameter.data = source.data.float()
    expected = layer_forward(exact, x.float(), positions)
    theirs = (layer_forward(model, x, positions).float() - expected).norm()
    ours = (composed(bound_layer(model), x, positions).float() - expected).norm()
    assert ours <= 1.1 * theirs


def test_pre_q_and_pre_kv_are_parts_of_pre() -> None:
    ours = Composed(bound_layer(tiny_llama()), inputs(torch.float32)[0], torch.arange(ROWS))
    q, k, v = (ours.heads(name) for name in "qkv")
    ours.call("preQ", [ours.x, ours.positions], [q])
    ours.call("preKv", [ours.x, ours.positions], [k, v])
    assert all(torch.equal(part, whole) for part, whole in zip((q, k, v), ours.pre(), strict=True))


@pytest.mark.parametrize("first", [0, 1_000_001, 14_999_976])
def test_rope_at_long_positions_is_hugging_face_s_bit_by_bit(first: int) -> None:
    model = tiny_llama()
    ours = Composed(bound_layer(model), inputs(torch.float32)[0], torch.arange(first, first + ROWS))
    cos, sin = model.model.rotary_emb(ours.x[None], ours.positions[None])
    attention = model.model.layers[0].self_attn
    q = attention.q_proj(model.model.layers[0].input_layernorm(ours.x)).view(ROWS, 4, 8)
    half = torch.cat((-q[..., 4:], q[..., :4]), dim=-1)
    rotated = ours.heads("q")
    ours.call("preQ", [ours.x, ours.positions], [rotated])
    assert torch.equal(rotated, q * cos[0][:, None] + half * sin[0][:, None])


def test_rotary_is_not_rounded_by_a_cast_of_the_model() -> None:
    model = tiny_llama()
    before = rotary_of(model, CPU)({"module": "model.rotary_emb"}).inverse_frequency
    assert torch.equal(before, model.model.rotary_emb.inv_freq)
    model.bfloat16()
    after = rotary_of(model, CPU)({"module": "model.rotary_emb"}).inverse_frequency
    assert model.model.rotary_emb.inv_freq.dtype == torch.bfloat16
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"attention_dropout": 0.1}, "attention_dropout: 0.1 is not supported for llama; 0 is"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "RoPE type 'dynamic' is not supported"),
        ({"rope_scaling": {"type": "longrope"}}, r"(?s)RoPE type 'longrope'.*default, llama3, linear, yarn"),
        ({"model_type": "mamba"}, "'mamba' is not supported"),
    ],
)
def test_unsupported_options_are_refused_by_name(config: dict[str, Any], message: str) -> None:
    """Where code is made, so that there is no plan of such a model."""
    supported = {**config_json(tiny_config()), "attention_dropout": 0.0, "rope_scaling": None}
    planned_model(supported)
    with pytest.raises(PlannerError, match=message):
        planned_model({**supported, "rope_parameters": None, **config})


def test_slices_cover_the_layer_and_each_reverse_adds_to_its_own() -> None:
    layer = bound_layer(tiny_llama())
    ends = [weight.offset + weight.numel for weight in layer.weights]
    assert [weight.offset for weight in layer.weights] == [0, *ends[:-1]]
    assert ends[-1] == sum(parameter.numel() for parameter in layer.module.parameters())
    x, dy = inputs(torch.float32)
    for kind, is_pre in (("postBwd", False), ("preBwd", True)):
        ours = Composed(layer, x, torch.arange(ROWS))
        grads = [torch.randn_like(view) for view in ours.pre()]
        if is_pre:
            ours.call(kind, [ours.x, ours.positions, *grads], [], [dy.clone(), ours.wgrad])
        else:
            ours.call(kind, [ours.x, grads[0]], [torch.empty_like(grads[0])], [dy.clone(), ours.wgrad])
        for weight in layer.weights:
            assert bool(weight.view(ours.wgrad).any()) == (is_pre == (weight.name.removesuffix(".weight") in PRE))


def test_a_tied_lm_head_adds_to_the_embeddings_region_and_emits_nothing() -> None:
    extra = bound_engine(tiny_llama(tie_word_embeddings=True))
    assert extra.lm_head_weights == extra.embed_weights
    assert extra.embed_weights[0].parameter is extra.embed_module.weight is extra.head_module.weight
    assert extra.head.weight is extra.head_module.weight
    assert [weight.name for weight in extra.head_weights] == ["model.norm.weight"]


def test_slices_of_the_head_start_at_0_in_each_view() -> None:
    """The norm's is the first of the head's region, and lm_head's follows in that, but not in its own view."""
    extra = bound_engine(tiny_llama())
    norm, lm_head = extra.head_weights
    assert [weight.name for weight in (norm, lm_head)] == ["model.norm.weight", "lm_head.weight"]
    assert [norm.offset, lm_head.offset] == [0, norm.numel]
    assert [weight.offset for weight in extra.lm_head_weights] == [0]


def test_frozen_weights_have_no_slice() -> None:
    """And none of its elements in the region."""
    model = tiny_llama()
    before = bound_layer(model).weights
    frozen = model.model.layers[0].self_attn.k_proj.weight.requires_grad_(False)
    after = bound_layer(model).weights
    assert [one.name for one in after] == [one.name for one in before if one.parameter is not frozen]
    assert after[-1].offset + after[-1].numel == before[-1].offset + before[-1].numel - frozen.numel()


def test_freeze_does_what_the_plan_says() -> None:
    model, other = tiny_llama(), tiny_llama()
    other.model.embed_tokens.weight.requires_grad_(False)
    other.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    freeze(model, tables_of(other))
    theirs, ours = ([name for name, one in of.named_parameters() if not one.requires_grad] for of in (other, model))
    assert ours == theirs == ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"]


def test_a_table_of_another_model_is_refused() -> None:
    model, other = tiny_llama(), tiny_llama(num_key_value_heads=4)
    with pytest.raises(ParameterError, match=r"'self_attn.k_proj.weight' has shape \(16, 32\), .* says \(32, 32\)"):
        bound_layer(model, tables_of(other))
    with pytest.raises(ParameterError, match=r"'self_attn.q_proj.bias' that the module lacks; it has self_attn"):
        bound_layer(model, tables_of(tiny_llama(attention_bias=True)))
    other = tiny_llama()
    other.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    with pytest.raises(ParameterError, match=r"'mlp.up_proj.weight' trains in the model, in the plan it is frozen"):
        bound_layer(model, tables_of(other))
    with pytest.raises(ParameterError, match=r"'mlp.up_proj.weight' trains in the plan, in the model it is frozen"):
        bound_layer(other, tables_of(model))


def test_code_of_another_model_is_refused() -> None:
    model, own = tiny_llama(), tables_of(tiny_llama())
    biased = tables_of(tiny_llama(attention_bias=True))
    with pytest.raises(ParameterError, match=r"code uses 'self_attn.q_proj.bias', which the module lacks; it has self"):
        bound_layer(model, Tables(biased.code, own.parameters, own.head_map))
    with pytest.raises(ParameterError, match=r"no module 'transformer.h', which the plan names"):
        decoder_layers(model, own.code.model_copy(update={"layers": "transformer.h"}))
    with pytest.raises(ParameterError, match="the model has 1 decoder layers, the plan 2"):
        decoder_layers(model, own.code.model_copy(update={"class_of": (0, 0)}))


def test_a_table_that_lacks_a_weight_of_the_model_is_refused() -> None:
    model, biased = tiny_llama(), tiny_llama(attention_bias=True)
    own = tables_of(model)
    check_complete(model, [bound_layer(model)], bound_engine(model), own.parameters)
    with pytest.raises(
        ParameterError, match=r"trains 4 weights that the plan lacks: model.layers.0.self_attn.q_proj.b"
    ):
        check_complete(biased, [bound_layer(biased, own)], bound_engine(biased), own.parameters)
    for name, parameter in biased.named_parameters():
        parameter.requires_grad_(not name.endswith("bias"))
    with pytest.raises(ParameterError, match=r"the model has \d+ parameters, the plan says \d+"):
        check_complete(biased, [bound_layer(biased, own)], bound_engine(biased), own.parameters)


def test_gradients_sum_in_fp32_and_are_cast_once() -> None:
    weight = nn.Parameter(torch.zeros(2, 3, dtype=torch.bfloat16))
    slices = [WeightSlice("w", weight, (2, 3), offset=1, numel=6)]
    region = torch.zeros(8)
    for _ in range(4):
        accumulate(slices, region, [torch.full((2, 3), 0.00390625, dtype=torch.bfloat16)])
        accumulate(slices, region, [torch.ones(2, 3, dtype=torch.bfloat16)])
    assert region.tolist() == [0.0, *[4.015625] * 6, 0.0]
    (grad,) = cast_gradients(slices, region, factor=0.5)
    assert (grad.dtype, grad.shape, float(grad[0, 0])) == (torch.bfloat16, (2, 3), 2.0)
    (copy,) = cast_gradients([WeightSlice("w", nn.Parameter(torch.zeros(2, 3)), (2, 3), 1, 6)], region)
    region.zero_()
    assert float(copy[1, 2]) == 4.015625
