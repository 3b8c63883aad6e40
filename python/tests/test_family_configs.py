"""Which configs the planner takes for one and the same model, and which it refuses by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from transformers import AutoConfig

from tests.family_configs import CONFIGS
from tests.model_code import ask_planner

Config = Mapping[str, Any]


def planned_alike(configs: list[Config]) -> list[dict[str, Any]]:
    """What is planned, without the config itself."""
    answers = ask_planner([{"config": config, "dtype": "float32"} for config in configs])
    for answer in answers:
        assert "model" in answer, answer
        del answer["model"]["hfConfig"]
    return answers


@cache
def plain_and_saved() -> Mapping[str, tuple[dict[str, Any], dict[str, Any]]]:
    saved = [json.loads(AutoConfig.for_model(**config).to_json_string(use_diff=False)) for config in CONFIGS.values()]
    answers = planned_alike([*CONFIGS.values(), *saved])
    return dict(zip(CONFIGS, zip(answers[: len(saved)], answers[len(saved) :], strict=True), strict=True))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_as_transformers_saves_it_plans_the_same(name: str) -> None:
    """It says all that ours leaves out: every default, layer_types, rope_parameters."""
    plain, saved = plain_and_saved()[name]
    assert saved == plain


SPELLINGS: Mapping[str, tuple[Config, Config]] = {
    "llama rope": ({"rope_theta": 5e5}, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
    "phi part": ({"partial_rotary_factor": 0.25}, {"rope_parameters": {"partial_rotary_factor": 0.25}}),
    "gpt_neox part": ({"rotary_pct": 0.5}, {"rope_parameters": {"partial_rotary_factor": 0.5}}),
    "gpt2 sizes": (
        {"n_positions": 64},
        {
            **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64},
            **dict.fromkeys(("n_embd", "n_layer", "n_head", "n_positions")),
        },
    ),
    "gpt_neo kinds": ({}, {"attention_layers": ["global", "local"]}),
    "gemma2 kinds": ({}, {"layer_types": ["sliding_attention", "full_attention"]}),
    "qwen2 kinds": ({}, {"layer_types": ["full_attention"] * 2, "use_sliding_window": False, "sliding_window": 9}),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_of_one_model_plan_the_same(name: str) -> None:
    """A key that is None is left out."""
    both = [{**CONFIGS[name.split()[0]], **more} for more in SPELLINGS[name]]
    one, other = planned_alike([{key: value for key, value in config.items() if value is not None} for config in both])
    assert one == other


REFUSED: list[tuple[str, Config, str]] = [
    ("llama", {"pretraining_tp": 2}, "pretraining_tp"),
    ("llama", {"hidden_act": "xielu"}, "activation 'xielu'"),
    ("llama", {"attention_dropout": 0.1}, "attention_dropout"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma2", {"layer_types": ["sliding_attention", "chunked_attention"]}, 'layer_types: "chunked_attention"'),
    ("gemma2", {"layer_types": ["full_attention"]}, "layer_types: expected a list of 2"),
    (
        "gemma3_text",
        {"rope_parameters": {"full_attention": {"rope_type": "dynamic", "factor": 2.0}}},
        "RoPE type 'dynamic'",
    ),
    ("phi3", {"resid_pdrop": 0.1}, "resid_pdrop"),
    ("phi3", {"embd_pdrop": 0.1}, "embd_pdrop"),
    ("phi3", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_scaling.type"),
    ("phi", {"partial_rotary_factor": 0.4}, "RoPE of 3 dimensions"),
    ("phi", {"tie_word_embeddings": True}, "bias cannot be tied"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
    ("gpt_neox", {"hidden_dropout": 0.1}, "hidden_dropout"),
    ("olmo", {"clip_qkv": 8.0}, "clip_qkv"),
    ("stablelm", {"qk_layernorm": True}, "qk_layernorm"),
    ("starcoder2", {"residual_dropout": 0.1}, "residual_dropout"),
    ("starcoder2", {"embedding_dropout": 0.1}, "embedding_dropout"),
    ("cohere", {"use_qk_norm": True}, "use_qk_norm"),
    ("gpt_neo", {"resid_dropout": 0.1}, "resid_dropout"),
    ("gpt_neo", {"attention_types": [[["global", "local", "local"], 1]]}, "attention_types.0.0.2"),
    ("gpt_neo", {"attention_types": [[["global", "sparse"], 1]]}, "attention_types.0.0.1"),
    ("gpt_neo", {"attention_types": [[["global", "local"], 1], [["global"], 2]]}, "attention_types.1"),
    ("opt", {"word_embed_proj_dim": 16}, "word_embed_proj_dim"),
    ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before"),
    ("opt", {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine"),
    ("opt", {"_remove_final_layer_norm": True}, "_remove_final_layer_norm"),
    ("opt", {"layerdrop": 0.1}, "layerdrop"),
    ("falcon", {"alibi": True}, "alibi"),
    ("falcon", {"new_decoder_architecture": True, "parallel_attn": False}, "parallel_attn"),
    ("seed_oss", {"residual_dropout": 0.1}, "residual_dropout"),
]
LEFT_OUT = [("gpt2", "resid_pdrop"), ("gpt2", "attn_pdrop"), ("opt", "dropout"), ("seed_oss", "attention_dropout")]
"""Keys that mean dropout where they are absent."""


@cache
def refusals() -> list[dict[str, Any]]:
    bent = [{**CONFIGS[name], **bend} for name, bend, _ in REFUSED]
    absent = [{key: value for key, value in CONFIGS[name].items() if key != left_out} for name, left_out in LEFT_OUT]
    return ask_planner([{"config": config, "dtype": "float32"} for config in [*bent, *absent]])


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=[f"{name} {message}" for name, _, message in REFUSED])
def test_what_the_programs_do_not_compute_is_refused_by_name(number: int) -> None:
    assert REFUSED[number][2] in refusals()[number].get("error", "nothing refused")


@pytest.mark.parametrize("number", range(len(LEFT_OUT)), ids=[" ".join(one) for one in LEFT_OUT])
def test_dropout_that_is_transformers_default_is_refused(number: int) -> None:
    answer = refusals()[len(REFUSED) + number]
    assert f"{LEFT_OUT[number][1]}: absent, which means 0.1" in answer.get("error", "nothing refused")
    assert answer["hint"].startswith("0 is: ")
