"""Models of every family as the planner and as transformers have them, and what both make of the same numbers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fpdt.attention import CAUSAL, Mask, backend_named
from fpdt.models import EngineBinding, Kernels, LayerBinding, bind_engine, bind_layer, decoder_layers, rotary_of
from fpdt.models.build import build_model
from fpdt.models.interpreter import LinkedCode
from fpdt.models.training import prepare
from fpdt.ops.loss import loss
from fpdt.plan.data import HeadMap, ParameterTable
from fpdt.plan.model_code import ModelCode
from tests.family_configs import CONFIGS, TRAININGS
from tests.planned import ROOT

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


@dataclass(frozen=True)
class Family:
    """A config as planned. By dtype, of the codes of the ends and of each class of layers: peak bytes, and work."""

    config: Mapping[str, Any]
    windows: tuple[int | None, ...]
    code: ModelCode
    parameters: ParameterTable
    peaks: Mapping[str, Mapping[str, Any]]
    work: Mapping[str, Mapping[str, Any]]
    head_map: HeadMap
    lora: Mapping[str, Any] | None = None
    table_names: tuple[str, ...] = ("tokenIds", "positions", "labels")


def ask_planner(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Answers of scripts/modelCode.ts to `{config, dtype}` on ROWS rows."""
    asked = json.dumps([{"rows": ROWS, **entry} for entry in entries])
    command = ["node", "--import", "tsx", "scripts/modelCode.ts"]
    done = subprocess.run(command, input=asked, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


@cache
def families() -> Mapping[str, Family]:
    """All of CASES, planned once a session."""
    dtypes = ("float32", "bfloat16")
    asked = [
        {"config": config, "training": training, "dtype": dtype}
        for config, training in CASES.values()
        for dtype in dtypes
    ]
    answers = iter(ask_planner(asked))
    return {
        name: _family(name, config, {dtype: next(answers) for dtype in dtypes}) for name, (config, _) in CASES.items()
    }


def _family(name: str, config: Mapping[str, Any], answers: Mapping[str, dict[str, Any]]) -> Family:
    answer = answers["float32"]
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
        head_map=HeadMap((heads,), (kv_heads,)),
        lora=model.get("lora"),
    )


class Built:
    """A model with weights that are nowhere 0 or 1, and the bindings that the engine would have."""

    def __init__(self, family: Family, dtype: torch.dtype) -> None:
        self.family, self.dtype = family, dtype
        self.model = build_model(family.config, 0, dtype, layers=family.code.layers, with_buffers=True).eval()
        prepare(self.model, family, family.lora, 0, dtype)
        randomize(self.model)
        rotary = rotary_of(self.model, torch.device("cpu"))
        self.modules = decoder_layers(self.model, family.code)
        self.layers = [bind_layer(one, i, family, rotary, dtype) for i, one in enumerate(self.modules)]
        backend = backend_named("reference")
        self.engine: EngineBinding = bind_engine(self.model, family, Kernels(backend, backend), _no_emit, rotary, dtype)
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


class LayerRun:
    """A decoder layer by its code, as the ops run it: forward, then backward into `dx` and `wgrad`.

    With `keeps`, products of forward are kept for backward.
    """

    def __init__(self, built: Built, number: int, x: Tensor, *, keeps: bool = False) -> None:
        self.built, self.layer, self.x = built, built.layers[number], x
        self.positions, self.mask = torch.arange(ROWS), built.mask(number)
        self.q, self.k, self.v = (built.empty(name) for name in "qkv")
        self.layer.pre.run({"@x": x, "@positions": self.positions, "@q": self.q, "@k": self.k, "@v": self.v})
        self.o, self.lse = backend_named("reference").forward(*self._qkv(), self.layer.attention, self.mask, 0, 0)
        self.y = torch.empty_like(x)
        self.kept = built.empty("kept") if keeps else None
        views = {"@x": x, "@o": self.o.reshape(ROWS, -1), "@y": self.y}
        if self.kept is None:
            self.layer.post.run(views)
        else:
            self.layer.post_keep.run({**views, "@kept": self.kept})

    def _qkv(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.built.heads(self.q), self.built.heads(self.k), self.built.heads(self.v)

    def backward(self, dx: Tensor, wgrad: Tensor) -> None:
        """`dx` holds the gradient of y on entry and that of x on return."""
        o = self.o.reshape(ROWS, -1)
        do = torch.empty_like(o)
        after = {"@x": self.x, "@o": o, "@do": do, "@dx": dx, "wgrad": wgrad}
        if self.kept is None:
            self.layer.post_bwd.run(after)
        else:
            self.layer.post_bwd_kept.run({**after, "@kept": self.kept})
        config = self.layer.attention
        grads = backend_named("reference").backward(
            self.built.heads(do), *self._qkv(), self.o, self.lse, config, self.mask, 0, 0
        )
        dq, dk, dv = (grad.reshape(ROWS, -1) for grad in grads)
        views = {"@x": self.x, "@positions": self.positions, "@dq": dq, "@dk": dk, "@dv": dv, "@dx": dx}
        self.layer.pre_bwd.run({**views, "wgrad": wgrad})


def slices_of(binding: LayerBinding, region: Tensor) -> dict[str, Tensor]:
    return {one.name: one.view(region) for one in binding.weights}


def run_model(built: Built, ids: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of token losses, and the gradients of all weights by their names in the model."""
    engine, table, code = built.engine, built.family.parameters, built.family.code
    positions, x = torch.arange(ROWS), torch.empty(ROWS, code.embed.widths["@x"], dtype=built.dtype)
    engine.embed.run({"@tokenIds": ids, "@positions": positions, "@x": x})
    runs = []
    for number in range(len(built.layers)):
        runs.append(LayerRun(built, number, x))
        x = runs[-1].y
    head, embed = built.region(table.num_head_elements), built.region(table.num_embed_elements)
    norm, own_head = head[: table.num_head_norm_elements], head[table.num_head_norm_elements :]
    dx, total = torch.empty_like(x), torch.zeros((), dtype=head.dtype)
    ctx = SimpleNamespace(engine=engine, op=SimpleNamespace(attribute=SimpleNamespace(tiles=1)))
    loss(cast(Any, ctx), x, labels, dx, total, norm, own_head if code.lm_head.weights else embed)
    grads = {}
    for number, run in reversed(list(enumerate(runs))):
        wgrad = built.layer_region(number)
        run.backward(dx, wgrad)
        named = slices_of(run.layer, wgrad).items()
        grads.update({f"{code.layers}.{number}.{name}": grad for name, grad in named})
    engine.embed_bwd.run({"@tokenIds": ids, "@positions": positions, "@dx": dx, "wgrad": embed})
    ends = ((engine.head_weights, head), (engine.embed_weights, embed))
    return total, grads | {one.name: one.view(region) for slices, region in ends for one in slices}


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: one for name, one in module.named_parameters() if one.requires_grad}


class AllDouble(TorchFunctionMode):
    """Leaves out the casts to fp32 that transformers makes in an fp64 model: they would bury small mistakes."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        is_double = bool(args) and isinstance(args[0], Tensor) and args[0].dtype == torch.float64
        if is_double and func is Tensor.float:
            return args[0]
        if is_double and func is Tensor.to and torch.float32 in (*args[1:], *kwargs.values()):
            return args[0]
        if is_double and func in (functional.softmax, torch.softmax) and kwargs.get("dtype") == torch.float32:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


class Calls:
    """What transformers gives its decoder layers, so that a test can call one by itself in the same way."""

    def __init__(self, built: Built) -> None:
        self._arguments: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        hooks = [one.register_forward_pre_hook(self._note, with_kwargs=True) for one in built.modules]
        ids = token_ids(int(built.family.config["vocab_size"]))
        with torch.no_grad():
            built.model(input_ids=ids[None])
        for hook in hooks:
            hook.remove()

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._arguments[module] = (args, kwargs)

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        (_, *args), kwargs = self._arguments[module]
        with AllDouble():
            y = module(x[None], *args, **kwargs)
        return cast(Tensor, y[0][0] if isinstance(y, tuple) else y[0])


def their_model(built: Built, ids: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    with AllDouble():
        logits = built.model(input_ids=ids[None]).logits[0]
    total = functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    named = trained(built.model)
    return total, dict(zip(named, torch.autograd.grad(total, list(named.values())), strict=True))
