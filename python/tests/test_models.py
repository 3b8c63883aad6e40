"""The Llama family against Hugging Face's decoder layer: post . attention . pre is its forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fpdt.attention import CAUSAL, backend_named
from fpdt.models import LayerBinding, UnsupportedModelError, bind_layer, family_named
from fpdt.run.parameters import ParameterError, WeightSlice, accumulate, cast_gradients
from tests.tiny_models import bound_engine, bound_layer, layer_forward, table_of, tiny_llama

ROWS = 24


class Attention(torch.autograd.Function):
    """A backend as an autograd function, so that the whole layer has gradients."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layer: LayerBinding) -> Tensor:
        o, lse = backend_named("cpu_flash").forward(q, k, v, layer.attention, CAUSAL, 0, 0)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.layer = layer
        return o

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, o, lse = ctx.saved_tensors
        backend = backend_named("cpu_flash")
        return (*backend.backward(grads[0], q, k, v, o, lse, ctx.layer.attention, CAUSAL, 0, 0), None)


def composed(layer: LayerBinding, x: Tensor, positions: Tensor) -> Tensor:
    q, k, v = layer.family.pre(layer, x, positions)
    o = Attention.apply(q, k, v, layer)  # type: ignore[no-untyped-call]
    return layer.family.post(layer, x, o)


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


@pytest.mark.parametrize("case", list(CASES))
def test_layer_and_gradients_are_hugging_face_s(case: str) -> None:
    model = tiny_llama(**CASES[case])
    (x, dy), positions = inputs(torch.float32), torch.arange(ROWS) + 3000
    weights = list(model.model.layers[0].parameters())
    expected = layer_forward(model, x, positions)
    expected_grads = torch.autograd.grad(expected, [x, *weights], dy)
    actual = composed(bound_layer(model), x, positions)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    for grad, expected_grad in zip(torch.autograd.grad(actual, [x, *weights], dy), expected_grads, strict=True):
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
    layer, positions = bound_layer(tiny_llama()), torch.arange(ROWS)
    x = inputs(torch.float32)[0].detach()
    q, k, v = layer.family.pre(layer, x, positions)
    parts = [layer.family.pre_q(layer, x, positions), *layer.family.pre_kv(layer, x, positions)]
    assert all(torch.equal(part, whole) for part, whole in zip(parts, (q, k, v), strict=True))


@pytest.mark.parametrize("first", [0, 1_000_001, 14_999_976])
def test_rope_at_long_positions_is_hugging_face_s_bit_by_bit(first: int) -> None:
    model = tiny_llama()
    layer, positions = bound_layer(model), torch.arange(first, first + ROWS)
    x = inputs(torch.float32)[0].detach()
    cos, sin = model.model.rotary_emb(x[None], positions[None])
    attention = model.model.layers[0].self_attn
    q = attention.q_proj(model.model.layers[0].input_layernorm(x)).view(ROWS, 4, 8)
    half = torch.cat((-q[..., 4:], q[..., :4]), dim=-1)
    assert torch.equal(layer.family.pre_q(layer, x, positions), q * cos[0][:, None] + half * sin[0][:, None])


def test_rotary_is_not_rounded_by_a_cast_of_the_model() -> None:
    family, model = family_named("llama"), tiny_llama()
    before = family.rotary(model, torch.device("cpu")).inverse_frequency
    model.bfloat16()
    after = family.rotary(model, torch.device("cpu")).inverse_frequency
    assert model.model.rotary_emb.inv_freq.dtype == torch.bfloat16
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"attention_dropout": 0.1}, "attention_dropout=0.1 is undefined"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "rope type 'dynamic' changes with the length"),
        ({"rope_scaling": {"type": "longrope"}}, "rope type 'longrope'.*default, linear, llama3, yarn"),
    ],
)
def test_unsupported_options_are_refused_by_name(config: dict[str, Any], message: str) -> None:
    family_named("llama").check({"attention_dropout": 0.0, "rope_scaling": None})
    with pytest.raises(UnsupportedModelError, match=message):
        family_named("llama").check(config)


def test_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match="unknown model family 'mamba', expected one of llama"):
        family_named("mamba")


def test_slices_of_pre_and_post_start_at_0_and_cover_the_layer() -> None:
    layer = bound_layer(tiny_llama())
    pre, post = (sum(weight.numel for weight in part) for part in (layer.pre_weights, layer.post_weights))
    assert layer.pre_weights[0].offset == layer.post_weights[0].offset == 0
    assert [weight.name for weight in layer.pre_weights + layer.post_weights] == [w.name for w in layer.weights]
    assert layer.weights[len(layer.pre_weights)].offset == pre
    assert pre + post == sum(parameter.numel() for parameter in layer.module.parameters())


def test_a_tied_lm_head_adds_to_the_embeddings_region_and_emits_nothing() -> None:
    extra = bound_engine(tiny_llama(tie_word_embeddings=True))
    assert extra.lm_head_weights == extra.embed_weights
    assert extra.embed_weights[0].parameter is extra.embed.weight is extra.lm_head.weight
    assert [weight.name for weight in extra.head_weights] == ["model.norm.weight"]


def test_slices_of_the_head_start_at_0_in_each_view() -> None:
    extra = bound_engine(tiny_llama())
    assert extra.norm_weights[0].offset == extra.lm_head_weights[0].offset == 0
    assert [weight.offset for weight in extra.head_weights] == [0, extra.norm_weights[0].numel]


def test_frozen_weights_have_no_slice() -> None:
    """Whether the plan knows or not; the others keep their places in the plan's region."""
    family, model = family_named("llama"), tiny_llama()
    table = table_of(model)
    module, rotary = family.layers(model)[0], family.rotary(model, torch.device("cpu"))
    before = {weight.name: weight.offset for weight in bind_layer(family, module, rotary, table).pre_weights}
    model.model.layers[0].self_attn.k_proj.weight.requires_grad_(False)
    for plan_table in (table, table_of(model)):
        after = {weight.name: weight.offset for weight in bind_layer(family, module, rotary, plan_table).pre_weights}
        assert after == {name: offset for name, offset in before.items() if name != "self_attn.k_proj.weight"}


def test_a_table_of_another_model_is_refused() -> None:
    family, model, other = family_named("llama"), tiny_llama(), tiny_llama(num_key_value_heads=4)
    rotary, module = family.rotary(model, torch.device("cpu")), family.layers(model)[0]
    with pytest.raises(ParameterError, match=r"'self_attn.k_proj.weight' has shape \(16, 32\), .* says \(32, 32\)"):
        bind_layer(family, module, rotary, table_of(other))
    with pytest.raises(ParameterError, match=r"'self_attn.q_proj.bias' that the module lacks; it has self_attn"):
        bind_layer(family, module, rotary, table_of(tiny_llama(attention_bias=True)))
    other = tiny_llama()
    other.requires_grad_(False)
    with pytest.raises(ParameterError, match="requires gradients, the plan says it is frozen"):
        bind_layer(family, module, rotary, table_of(other))


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
