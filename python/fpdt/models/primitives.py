"""The primitives of a model's programs: what an instruction of the plan does to the values of some rows.

Twin of src/catalog/model/primitives.ts, which counts the bytes of every tensor that is made here: a change of one is a
change of both. Values are [rows, width] in the model dtype. Everything runs without grad: the reverse of a primitive is
written out, so nothing lives longer than the plan says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fpdt.models.fused import add_product
from fpdt.models.link import Env, Link, Work
from fpdt.models.norms import layernorm, layernorm_bwd, rmsnorm, rmsnorm_bwd, wide
from fpdt.models.rotary import angles, rope, rope_bwd

# --- linear ------------------------------------------------------------------------------------------------------


def linear(link: Link) -> Work:
    (source,), (target,) = link.reads, link.writes
    weight, bias = link.weights[0], link.weights[1] if len(link.weights) > 1 else None

    def work(env: Env) -> None:
        matrix = weight.value.t() if weight.transposed else weight.value
        env[target] = functional.linear(env[source], matrix, None if bias is None else bias.value)

    return work


def linear_bwd(link: Link) -> Work:
    upstream, *source = link.reads
    weight, biases = link.weights[0], link.weights[1:]

    def work(env: Env) -> None:
        dy = env[upstream]
        if weight.slice is not None:
            x = env[source[0]]
            factors = (x.t(), dy) if weight.transposed else (dy.t(), x)
            add_product(weight.gradient(env["wgrad"]), *factors, link.fused)
        for bias in biases:
            if bias.slice is not None:
                region = env["wgrad"]
                bias.gradient(region).add_(dy.sum(0, dtype=region.dtype))
        if not link.skips(0):
            env[link.writes[0]] = dy @ (weight.value.t() if weight.transposed else weight.value)

    return work


# --- element by element ------------------------------------------------------------------------------------------

_GELU = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh"}


def activation(link: Link) -> Work:
    (source,), (target,), kind = link.reads, link.writes, str(link.attributes["kind"])
    function = _activation(kind) if link.taken(0) is None else _activation_in_place(kind)

    def work(env: Env) -> None:
        env[target] = function(env[source])

    return work


def _activation(kind: str) -> Callable[[Tensor], Tensor]:
    if kind in _GELU:
        return lambda x: functional.gelu(x, approximate=_GELU[kind])
    if kind == "relu2":
        return lambda x: functional.relu(x).square_()
    return {"silu": functional.silu, "swish": functional.silu, "relu": functional.relu}[kind]


def _activation_in_place(kind: str) -> Callable[[Tensor], Tensor]:
    aten: Any = torch.ops.aten
    if kind in _GELU:
        return lambda x: aten.gelu_(x, approximate=_GELU[kind])
    if kind == "relu2":
        return lambda x: x.relu_().square_()
    in_place: Mapping[str, Callable[[Tensor], Tensor]] = {"silu": aten.silu_, "swish": aten.silu_, "relu": aten.relu_}
    return in_place[kind]


def activation_bwd(link: Link) -> Work:
    (upstream, source), (target,), kind = link.reads, link.writes, str(link.attributes["kind"])
    aten: Any = torch.ops.aten
    in_place = link.taken(0) is not None

    def work(env: Env) -> None:
        dy, x = env[upstream], env[source]
        out = {"grad_input": dy} if in_place else {}
        if kind in _GELU:
            env[target] = aten.gelu_backward(dy, x, approximate=_GELU[kind], **out)
        elif kind == "relu2":
            env[target] = functional.relu(x).mul_(dy).mul_(2)
        elif kind == "relu":
            env[target] = aten.threshold_backward(dy, x, 0, **out)
        else:
            env[target] = aten.silu_backward(dy, x, **out)

    return work


def multiply(link: Link) -> Work:
    (a, b), (target,) = link.reads, link.writes
    taken = link.taken(0)
    other = b if taken == a else a

    def work(env: Env) -> None:
        env[target] = env[a] * env[b] if taken is None else env[taken].mul_(env[other])

    return work


def multiply_bwd(link: Link) -> Work:
    """In place the gradient of the second factor takes the memory of the first, that of the first the upstream's."""
    upstream, a, b = link.reads
    made = iter(link.writes)
    pairs = [(next(made), other) for number, other in enumerate((b, a)) if not link.skips(number)]

    def work(env: Env) -> None:
        for target, other in pairs:
            env[target] = env[upstream] * env[other]

    def in_place(env: Env) -> None:
        dy = env[upstream]
        if len(pairs) == 2:
            env[pairs[1][0]] = env[a].mul_(dy)
        target, other = pairs[0]
        env[target] = dy.mul_(env[other])

    return work if link.taken(0) is None else in_place


def add(link: Link) -> Work:
    (a, b), (target,) = link.reads, link.writes
    taken = link.taken(0)
    other = b if taken == a else a

    def work(env: Env) -> None:
        env[target] = env[a] + env[b] if taken is None else env[taken].add_(env[other])

    return work


def scale(link: Link) -> Work:
    """Its own reverse. `rounded`: the factor is an fp32 tensor of the model's, which it casts to its dtype (Gemma)."""
    (source,), (target,), factor = link.reads, link.writes, float(link.attributes["by"])
    if link.attributes.get("rounded", False):
        factor = float(torch.tensor(factor, dtype=torch.float32).to(link.dtype))

    def work(env: Env) -> None:
        env[target] = env[source] * factor

    def in_place(env: Env) -> None:
        env[target] = env[source].mul_(factor)

    return work if link.taken(0) is None else in_place


def slice_(link: Link) -> Work:
    """Elements [start, end) of each of `groups` equal groups of a row."""
    (source,), (target,) = link.reads, link.writes
    groups, start, end = (int(link.attributes[name]) for name in ("groups", "start", "end"))

    def work(env: Env) -> None:
        x = env[source]
        y = torch.empty(x.shape[0], groups, end - start, dtype=x.dtype, device=x.device)
        env[target] = y.copy_(x.view(x.shape[0], groups, -1)[:, :, start:end]).view(x.shape[0], -1)

    return work


def slice_bwd(link: Link) -> Work:
    (upstream,), into = link.reads, link.into
    groups, start, end, each = (int(link.attributes[name]) for name in ("groups", "start", "end", "each"))

    def work(env: Env) -> None:
        dy = env[upstream].view(env[upstream].shape[0], groups, end - start)
        if into is None:
            zeros = torch.zeros(dy.shape[0], groups * each, dtype=dy.dtype, device=dy.device)
            env[link.writes[0]] = zeros
        total = env[into if into is not None else link.writes[0]]
        total.view(dy.shape[0], groups, each)[:, :, start:end].add_(dy)

    return work


# --- tables ------------------------------------------------------------------------------------------------------


def lookup(link: Link) -> Work:
    (source,), (target,), (weight,) = link.reads, link.writes, link.weights
    offset = int(link.attributes.get("offset", 0))

    def work(env: Env) -> None:
        rows = env[source] if offset == 0 else env[source] + offset
        env[target] = functional.embedding(rows, weight.value)

    return work


def lookup_bwd(link: Link) -> Work:
    """Scatter-adds in fp32. As in torch, the row of `padding` gets no gradient from a lookup."""
    (upstream, source), (weight,) = link.reads, link.weights
    offset = int(link.attributes.get("offset", 0))
    padding: Any = link.attributes.get("padding")

    def work(env: Env) -> None:
        rows = env[source] if offset == 0 else env[source] + offset
        total = weight.gradient(env["wgrad"])
        kept = None if padding is None else total[int(padding)].clone()
        total.index_add_(0, rows, wide(env[upstream]))
        if kept is not None:
            total[int(padding)].copy_(kept)

    return work


# --- views -------------------------------------------------------------------------------------------------------


def cast(link: Link) -> Work:
    (source,), (target,), dtype = link.reads, link.writes, link.dtype

    def work(env: Env) -> None:
        env[target] = env[source].to(dtype)

    return work


def store(link: Link) -> Work:
    """Into a view, or into its columns from `start` on."""
    (source,), into = link.reads, str(link.into)
    start = link.attributes.get("start")

    def whole(env: Env) -> None:
        env[into].copy_(env[source])

    def columns(env: Env) -> None:
        value = env[source]
        env[into].narrow(1, int(start or 0), value.shape[1]).copy_(value)

    return whole if start is None else columns


def load(link: Link) -> Work:
    """Columns of a view, which stay where they are: nothing after it changes them."""
    (source,), (target,) = link.reads, link.writes
    start, end = int(link.attributes["start"]), int(link.attributes["end"])

    def work(env: Env) -> None:
        env[target] = env[source][:, start:end]

    return work


def add_to(link: Link) -> Work:
    (source,), into = link.reads, str(link.into)

    def work(env: Env) -> None:
        env[into].add_(env[source])

    return work


PRIMITIVES: Mapping[str, Callable[[Link], Work]] = {
    "linear": linear,
    "linearBwd": linear_bwd,
    "rmsnorm": rmsnorm,
    "rmsnormBwd": rmsnorm_bwd,
    "layernorm": layernorm,
    "layernormBwd": layernorm_bwd,
    "angles": angles,
    "rope": rope,
    "ropeBwd": rope_bwd,
    "activation": activation,
    "activationBwd": activation_bwd,
    "multiply": multiply,
    "multiplyBwd": multiply_bwd,
    "add": add,
    "scale": scale,
    "slice": slice_,
    "sliceBwd": slice_bwd,
    "lookup": lookup,
    "lookupBwd": lookup_bwd,
    "cast": cast,
    "store": store,
    "load": load,
    "addTo": add_to,
}
