"""What the families' files say of config keys, held against the config classes of the installed transformers."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from fpdt.models.shapes import parameter_shapes
from tests.family_configs import CONFIGS
from tests.model_code import ask_planner
from tests.planned import ROOT

FILES: Mapping[str, Mapping[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "src/catalog/families").glob("*.json"))
}
TYPES = [(name, model_type) for name, family in FILES.items() for model_type in family["modelTypes"]]
COMMON: Mapping[str, Any] = json.loads((ROOT / "src/catalog/model/commonKeys.json").read_text())
COMMON_NAMES = {key for part in COMMON.values() if isinstance(part, (list, dict)) for key in part}
WORDS: Mapping[Any, str] = {
    **{int: "int", float: "float", bool: "bool", str: "str", list: "list", tuple: "list", dict: "dict"},
    types.NoneType: "null",
}
ROTARY = {"rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor"}
"""Read by a mixin of all config classes, of those that have rope_parameters."""


def members(annotation: Any) -> set[str]:
    """`int | None` as {int, null}."""
    if annotation in WORDS:
        return {WORDS[annotation]}
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return {member for one in arguments for member in members(one)}
    if origin is list:
        return {f"list[{WORDS[arguments[0]]}]"}
    if origin is dict or typing.is_typeddict(annotation):
        return {"dict"}
    raise TypeError(annotation)


def fields_of(config_class: Any) -> dict[str, set[str]]:
    """By name, names of `attribute_map` included; of all configs' fields none."""
    base = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    own = {field.name: members(field.type) for field in dataclasses.fields(config_class) if field.name not in base}
    return own | {alias: own[name] for alias, name in config_class.attribute_map.items()}


def written(name: str) -> dict[str, set[str]]:
    """By key the members of its type in the family's file, without bounds; a number may be an int."""
    keys = FILES[name]["keys"]
    plain = {kind: {re.sub(r" [<>]=?[-\d.]+", "", one) for one in kind.split(" | ")} for kind in keys}
    return {key: plain[kind] for kind, names in keys.items() for key in names}


@pytest.mark.parametrize(("name", "model_type"), TYPES)
def test_keys_of_a_family_are_those_of_its_config_class(name: str, model_type: str) -> None:
    """A file takes no type that the class refuses; it may refuse one of which no model could be built."""
    config_class = CONFIG_MAPPING[model_type]
    known, ours = fields_of(config_class), written(name)
    source = inspect.getsource(config_class)
    popped = set(re.findall(r'kwargs\.(?:get|pop|setdefault)\(\s*"(\w+)"', source))
    assigned = set(re.findall(r"self\.(\w+) = ", source))
    read = {key.split(".")[0] for key in keys_read(name)}
    assert set(known) - set(ours) == set()
    assert set(ours) - set(known) - popped - assigned - read - ROTARY == set()
    for key in set(known) & set(ours):
        assert ours[key] <= known[key], key
    assert popped - set(ours) - COMMON_NAMES - ROTARY == set()


def keys_read(name: str) -> set[str]:
    settings = [*FILES[name]["settings"].values(), *FILES[name].get("layerSettings", {}).values()]
    keys = [
        setting[kind] for setting in settings for kind in ("size", "number", "flag", "text", "given") if kind in setting
    ]
    return {one for key in keys for one in ([key] if isinstance(key, str) else key)}


def test_keys_of_all_configs_are_known() -> None:
    fields = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    assert fields - COMMON_NAMES == set()
    assert set(GenerationConfig._get_default_generation_params()) - COMMON_NAMES - set_of_others() == set()


def set_of_others() -> set[str]:
    """Of speculative decoding: no config of a model has them, and none of a family's keys is like them."""
    named = [
        key
        for key in GenerationConfig._get_default_generation_params()
        if re.search("assistant|lookb|cutoff|penalty|num_", key)
    ]
    return {*named}


@cache
def of_classes() -> dict[str, dict[str, Any]]:
    """Answers to the default config of each class as transformers saves it."""
    saved = [json.loads(CONFIG_MAPPING[kind]().to_json_string(use_diff=False)) for _, kind in TYPES]
    answers = ask_planner([{"config": config, "dtype": "float32"} for config in saved])
    return {kind: answer for (_, kind), answer in zip(TYPES, answers, strict=True)}


@pytest.mark.parametrize("model_type", [model_type for _, model_type in TYPES])
def test_a_default_config_is_planned_or_refused_for_what_it_computes(model_type: str) -> None:
    answer = of_classes()[model_type]
    refusal = answer.get("error", "")
    assert "model" in answer or re.search(
        r"dropout: 0.1|pdrop: 0.1|(?:head_dim|num_key_value_heads): .* found null", refusal
    ), answer
    assert answer.get("remarks", []) == []


NULLS = [(name, key) for name, config in CONFIGS.items() if " " not in name for key in written(config["model_type"])]


@cache
def of_nulls() -> dict[tuple[str, str], tuple[dict[str, Any], Any]]:
    """For a key that is null: what is planned, and the config as transformers saves it, or its error."""
    bent = [{**CONFIGS[name], key: None} for name, key in NULLS]
    answers = ask_planner([{"config": config, "dtype": "float32"} for config in bent])
    return {case: (answer, saved(config)) for case, answer, config in zip(NULLS, answers, bent, strict=True)}


def saved(config: Mapping[str, Any]) -> Any:
    try:
        return json.loads(AutoConfig.for_model(**config).to_json_string(use_diff=False))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def test_null_means_what_it_means_to_transformers() -> None:
    """What is planned with a null, transformers takes; and its own reading of the config plans the same."""
    planned = {case: config for case, (answer, config) in of_nulls().items() if "model" in answer}
    assert len(planned) > len(CONFIGS)
    assert {case: config for case, config in planned.items() if isinstance(config, str)} == {}
    counts = {case: of_nulls()[case][0]["parameters"]["numModelParameters"] for case in planned}
    assert {case: count for case, count in counts.items() if count != num_parameters(*case)} == {}
    again = ask_planner([{"config": config, "dtype": "float32"} for config in planned.values()])
    differing = {
        case: answer.get("error", "another model")
        for case, answer in zip(planned, again, strict=True)
        if without_config(answer) != without_config(of_nulls()[case][0])
    }
    assert differing == {}


def num_parameters(name: str, key: str) -> Any:
    try:
        return parameter_shapes({**CONFIGS[name], key: None})["numParameters"]
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def without_config(answer: Mapping[str, Any]) -> Any:
    return {key: value for key, value in answer.get("model", {}).items() if key != "hfConfig"} or answer


def test_every_other_model_is_refused_by_its_type() -> None:
    others = [kind for kind in CONFIG_MAPPING if kind not in {model_type for _, model_type in TYPES}]
    answers = ask_planner([{"config": {"model_type": kind}, "dtype": "float32"} for kind in others])
    assert len(others) > 400
    for kind, answer in zip(others, answers, strict=True):
        assert f"'{kind}' is not supported" in answer["error"]
        assert answer["hint"]
