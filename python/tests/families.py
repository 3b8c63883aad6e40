"""Models of every family as the planner and as transformers have them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from fpdt.attention import CAUSAL, Mask, backend_named
from fpdt.models import EngineBinding, Kernels, bind_engine, bind_layer, decoder_layers, rotary_of
from fpdt.models.build import build_model
from fpdt.models.interpreter import LinkedCode
from fpdt.models.training import prepare
from fpdt.plan.data import HeadMap, ParameterTable
from fpdt.plan.model_code import ModelCode
from fpdt.plan.nouns import FusedKernels
from tests.family_configs import CONFIGS, TRAININGS
from tests.model_code import ask_planner

ROWS = 24
_TABLE = TypeAdapter(ParameterTable)

CASES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    **{name: (config, {}) for name, config in CONFIGS.items()},
    **{
        name: (CONFIGS[case["config"]], {key: value for key, value in case.items() if key != "config"})
        for name, case in TRAININGS.items()
    },
}
"""Configs, and what of them trains."""
PLAIN_CASES = ("llama", "qwen3", "gemma2", "gpt2", "phi", "olmo2", "nemotron", "glm4")
"""Of which every primitive is measured with plain kernels too."""
KERNEL_CASES = [*((name, "auto") for name in CASES), *((name, "plain") for name in PLAIN_CASES)]


@dataclass(frozen=True)
class Family:
    """A config as planned. By dtype, of the codes of the ends and of each class of layers: peak bytes, and work.

    And by dtype the kernels beside attention that a plan would name.
    """

    config: Mapping[str, Any]
    windows: tuple[int | None, ...]
    code: ModelCode
    parameters: ParameterTable
    peaks: Mapping[str, Mapping[str, Any]]
    work: Mapping[str, Mapping[str, Any]]
    fused: Mapping[str, FusedKernels]
    head_map: HeadMap
    lora: Mapping[str, Any] | None = None
    table_names: tuple[str, ...] = ("tokenIds", "positions", "labels")


@cache
def families(kernels: str = "auto") -> Mapping[str, Family]:
    """All of CASES, planned once a session; with `plain` kernels, or with those that plans name."""
    dtypes = ("float32", "bfloat16")
    cases = {name: CASES[name] for name, of_kernels in KERNEL_CASES if of_kernels == kernels}
    asked = [
        {"config": config, "training": training, "dtype": dtype, "rows": ROWS, "kernels": kernels}
        for config, training in cases.values()
        for dtype in dtypes
    ]
    answers = iter(ask_planner(asked))
    return {
        name: family_of(name, config, {dtype: next(answers) for dtype in dtypes}) for name, (config, _) in cases.items()
    }


def family_of(name: str, config: Mapping[str, Any], answers: Mapping[str, dict[str, Any]]) -> Family:
    """`answers`: the planner's by dtype."""
    answer = next(iter(answers.values()))
    assert "model" in answer, f"{name}: {answer}"
    model = answer["model"]
    heads, kv_heads = (tuple(range(model[key])) for key in ("numHeads", "numKvHeads"))
    return Family(
        config=config,
        windows=tuple(model["windows"]),
        code=ModelCode.model_validate_json(json.dumps(model["code"])),
        parameters=_TABLE.validate_json(json.dumps(answer["parameters"])),
        peaks={dtype: one["peaks"] for dtype, one in answers.items()},
        work={dtype: one["work"] for dtype, one in answers.items()},
        fused={dtype: read_fused(one["fused"]) for dtype, one in answers.items()},
        head_map=HeadMap((heads,), (kv_heads,)),
        lora=model.get("lora"),
    )


def read_fused(answer: Mapping[str, Any]) -> FusedKernels:
    """What the planner's script says of them."""
    return FusedKernels.model_validate_json(json.dumps(answer))


class Built:
    """A model with weights that are nowhere 0 or 1, and the bindings that the engine would have."""

    def __init__(self, family: Family, dtype: torch.dtype) -> None:
        self.family, self.dtype = family, dtype
        self.model = build_model(family.config, 0, dtype, layers=family.code.layers, with_buffers=True).eval()
        prepare(self.model, family, family.lora, 0, dtype)
        randomize(self.model)
        rotary = rotary_of(self.model, torch.device("cpu"))
        self.modules = decoder_layers(self.model, family.code)
        # In fp64, against which the others are held, all that a plan of any dtype names.
        name = str(dtype).removeprefix("torch.")
        fused = family.fused[name if name in family.fused else "bfloat16"]
        self.layers = [bind_layer(one, i, family, rotary, dtype, fused) for i, one in enumerate(self.modules)]
        backend = backend_named("reference")
        kernels = Kernels(backend, backend, fused)
        self.engine: EngineBinding = bind_engine(self.model, family, kernels, _no_emit, rotary, dtype)
        self.head_dim = self.width("q") // len(family.head_map.query[0])

    def width(self, view: str) -> int:
        return max(
            code.widths.get(f"@{view}", 0) for one in self.family.code.classes for code in (one.pre, one.post_keep)
        )

    def empty(self, view: str) -> Tensor:
        return torch.empty(ROWS, self.width(view), dtype=self.dtype)

    def layer_region(self, number: int) -> Tensor:
        code = self.family.code
        return self.region(self.family.parameters.layers[code.class_of[number]].num_elements)

    def region(self, numel: int) -> Tensor:
        return torch.zeros(numel, dtype=torch.float64 if self.dtype == torch.float64 else torch.float32)

    def mask(self, number: int) -> Mask:
        window = self.family.windows[number]
        return CAUSAL if window is None else Mask("window", window)

    def heads(self, rows: Tensor) -> Tensor:
        return rows.view(ROWS, -1, self.head_dim)


def _no_emit(region: Tensor) -> None:
    raise AssertionError(f"unexpected emitGrads of {region.numel()} elements")


def randomize(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.3
        parameter.data = (noise + (1.0 if parameter.dim() == 1 else 0.0)).to(parameter.dtype)


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: one for name, one in module.named_parameters() if one.requires_grad}


def random_rows(width: int, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(ROWS, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def token_ids(vocab: int, seed: int = 1) -> Tensor:
    return torch.randint(0, vocab, (ROWS,), generator=torch.Generator().manual_seed(seed))


Measure = Callable[[LinkedCode, Mapping[str, Tensor]], Any]


def measure_codes(model: Built, measure: Measure) -> dict[str, Any]:
    """measure(code, views) of the ends and of each class of layers, as `peaks` and `work` have them."""
    table = model.family.parameters

    def rows(view: str, of_dtype: torch.dtype = model.dtype) -> Tensor:
        return random_rows(model.width(view), of_dtype, 1)

    x, positions = rows("x"), torch.arange(ROWS)
    q, k, v, o = rows("q"), rows("k"), rows("v"), rows("q")
    dq, dk, dv = (rows(name, torch.float32) for name in "qkv")
    tokens = {"@x": x, "@positions": positions}
    layers = []
    for number in (model.family.code.class_of.index(i) for i in range(len(model.family.code.classes))):
        layer, wgrad = model.layers[number], model.layer_region(number)
        after = {"@x": x, "@o": o}
        grads = {"@dq": dq, "@dk": dk, "@dv": dv, "@dx": rows("x")}
        layers.append(
            {
                "pre": measure(layer.pre, {**tokens, "@q": q, "@k": k, "@v": v}),
                "preQ": measure(layer.pre_q, {**tokens, "@q": q}),
                "preKv": measure(layer.pre_kv, {**tokens, "@k": k, "@v": v}),
                "preBwd": measure(layer.pre_bwd, {**tokens, **grads, "wgrad": wgrad}),
                "post": measure(layer.post, {**after, "@y": rows("x")}),
                "postBwd": measure(layer.post_bwd, {**after, "@do": rows("q"), "@dx": rows("x"), "wgrad": wgrad}),
                "postKeep": measure(layer.post_keep, {**after, "@y": rows("x"), "@kept": rows("kept")}),
                "postBwdKept": measure(
                    layer.post_bwd_kept,
                    {**after, "@kept": rows("kept"), "@do": rows("q"), "@dx": rows("x"), "wgrad": wgrad},
                ),
            }
        )
    engine, ids = model.engine, token_ids(int(model.family.config["vocab_size"]))
    embed, head = model.region(table.num_embed_elements), model.region(table.num_head_elements)
    looked_up = {"@tokenIds": ids, "@positions": positions}
    ends = {
        "embed": measure(engine.embed, {**looked_up, "@x": rows("x")}),
        "embedBwd": measure(engine.embed_bwd, {**looked_up, "@dx": x, "wgrad": embed}),
        "head": measure(engine.head.norm, {"@x": x}),
        "headBwd": measure(engine.head.norm_bwd, {"@x": x, "@dy": rows("x"), "@dx": rows("x"), "wgrad": head}),
    }
    return {"ends": ends, "layers": layers}
