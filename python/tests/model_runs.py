"""What a model of tests.families makes of the same numbers by its codes, and what transformers makes of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fpdt.attention import backend_named
from fpdt.models import LayerBinding
from fpdt.ops.loss import loss
from tests.families import ROWS, Built, token_ids, trained


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
