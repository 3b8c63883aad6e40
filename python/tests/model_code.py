"""What the planner makes of a Hugging Face config: the model of a plan's header, its code, and its parameter table."""

from __future__ import annotations

import atexit
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from fpdt.plan.data import ParameterTable
from fpdt.plan.model_code import ModelCode
from tests.planned import ROOT

_TABLE = TypeAdapter(ParameterTable)


@dataclass(frozen=True)
class Planned:
    """Of the planner's JSON, with its camelCase keys, and as the worker reads it."""

    model: Mapping[str, Any]
    parameters: Mapping[str, Any]
    code: ModelCode
    table: ParameterTable


class PlannerError(Exception):
    """The planner refused a config: its own words, with its hint."""


_known: dict[str, Planned] = {}


def planned_model(config: Mapping[str, Any], training: Mapping[str, Any] | None = None) -> Planned:
    """Raises PlannerError for a config that the planner refuses."""
    return planned_models([config], training)[0]


def planned_models(configs: Sequence[Mapping[str, Any]], training: Mapping[str, Any] | None = None) -> list[Planned]:
    """The planner starts once for all of them that no test has asked for before."""
    keys = [json.dumps({"config": config, "training": training or {}}, sort_keys=True) for config in configs]
    if new := [key for key in dict.fromkeys(keys) if key not in _known]:
        _known.update(zip(new, _ask([json.loads(key) for key in new]), strict=True))
    return [_known[key] for key in keys]


def _ask(entries: Sequence[Mapping[str, Any]]) -> list[Planned]:
    return [_read(answer) for answer in ask_planner([{**entry, "dtype": "float32"} for entry in entries])]


def ask_planner(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Answers of scripts/modelCode.ts to `{config, dtype, rows, training}`, of a row where none says how many."""
    planner = _planner()
    assert planner.stdin is not None and planner.stdout is not None
    print(json.dumps([{"rows": 1, **entry} for entry in entries]), file=planner.stdin, flush=True)
    answers: list[dict[str, Any]] = json.loads(planner.stdout.readline())
    return answers


@cache
def _planner() -> subprocess.Popen[str]:
    """One process for all tests, which ends with this one; what it says on stderr is seen."""
    command = ["node", "--import", "tsx", "scripts/modelCode.ts"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.communicate)
    return process


def _read(answer: Mapping[str, Any]) -> Planned:
    if "error" in answer:
        raise PlannerError(f"{answer['error']}; {answer['hint']}")
    model, parameters = answer["model"], answer["parameters"]
    code = ModelCode.model_validate_json(json.dumps(model["code"]))
    return Planned(model, parameters, code, _TABLE.validate_json(json.dumps(parameters)))
