"""Norms among the primitives of a model's programs, forward and in reverse."""

from __future__ import annotations

import torch
from torch import Tensor

from fpdt.models.link import Env, Link, Weight, Work


def rmsnorm(link: Link) -> Work:
    """`cast`: weight * n in the model dtype (Llama); `wide`: n * (weight + offset) in fp32, then cast (Gemma)."""
    (source,), (target,) = link.reads, link.writes
    (weight,), size, eps = link.weights, int(link.attributes["size"]), float(link.attributes["eps"])
    is_cast = link.attributes["style"] == "cast"

    def work(env: Env) -> None:
        x = env[source]
        n = _normalised(x.view(-1, size), eps)[0]
        y = weight.value * n.to(x.dtype) if is_cast else n.mul_(_scale(link, weight)).to(x.dtype)
        env[target] = y.view(x.shape)

    def in_fewer_passes(env: Env) -> None:
        x = env[source]
        n = _normalised_in_place(x.view(-1, size), eps)[0]
        y = n.to(x.dtype).mul_(weight.value) if is_cast else n.mul_(_scale(link, weight)).to(x.dtype)
        env[target] = y.view(x.shape)

    return work if link.fused.norm == "plain" else in_fewer_passes


def rmsnorm_bwd(link: Link) -> Work:
    upstream, source = link.reads
    (weight,), size, eps = link.weights, int(link.attributes["size"]), float(link.attributes["eps"])
    is_cast, is_plain = link.attributes["style"] == "cast", link.fused.norm == "plain"

    def work(env: Env) -> None:
        shape, dtype = env[source].shape, env[source].dtype
        n, inverse = (_normalised if is_plain else _normalised_in_place)(env[source].view(-1, size), eps)
        dy = env[upstream].view(-1, size)
        region = env["wgrad"]
        if is_cast:
            if weight.slice is not None:
                product = dy * n.to(dtype) if is_plain or n.dtype == dtype else n.to(dtype).mul_(dy)
                weight.gradient(region).add_(product.sum(0, dtype=region.dtype))
                del product
            g = wide(dy * weight.value)
        else:
            g = wide(dy)
            if weight.slice is not None:
                weight.gradient(region).add_((g * n).sum(0))
            g = g * _scale(link, weight)
        if not link.skips(0):
            mean = (g * n).mean(-1, keepdim=True)
            g = g.sub_(n.mul_(mean)) if is_plain else g.addcmul_(n, mean, value=-1)
            env[link.writes[0]] = g.mul_(inverse).to(dtype).view(shape)

    return work


def wide(x: Tensor) -> Tensor:
    """In fp32, fp64 as it is."""
    return x if x.dtype == torch.float64 else x.float()


def _normalised(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x / rms(x) and 1 / rms(x), in fp32 (fp64 for fp64)."""
    values = wide(x)
    inverse = values.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return values * inverse, inverse


def _normalised_in_place(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The same, the squares never written down, and of a half dtype in the memory of its fp32 values."""
    values = wide(x)
    inverse = torch.linalg.vector_norm(values, dim=-1, keepdim=True).square_().div_(x.shape[1]).add_(eps).rsqrt_()
    return (values * inverse if values.dtype == x.dtype else values.mul_(inverse)), inverse


def _scale(link: Link, weight: Weight) -> Tensor:
    offset = float(link.attributes.get("offset", 0))
    values = wide(weight.value)
    return values if offset == 0 else values + offset


def layernorm(link: Link) -> Work:
    """`offset` is added to the weight in the model dtype (Nemotron)."""
    (source,), (target,), size, eps = link.reads, link.writes, int(link.attributes["size"]), link.attributes["eps"]

    def work(env: Env) -> None:
        x = env[source]
        y, _, _ = torch.native_layer_norm(x.view(-1, size), [size], *_norm_weights(link), float(eps))
        env[target] = y.view(x.shape)

    return work


def layernorm_bwd(link: Link) -> Work:
    upstream, source = link.reads
    size, eps = int(link.attributes["size"]), float(link.attributes["eps"])
    trains = [weight.slice is not None for weight in link.weights]

    def work(env: Env) -> None:
        x = env[source].view(-1, size)
        weight, bias = _norm_weights(link)
        statistics = torch.native_layer_norm(x, [size], weight, bias, eps)[1:]
        mask = [not link.skips(0), *trains, *[False] * (2 - len(trains))]
        dx, *grads = torch.ops.aten.native_layer_norm_backward(
            env[upstream].view(-1, size), x, [size], *statistics, weight, bias, mask
        )
        for one, grad in zip(link.weights, grads, strict=False):
            if one.slice is not None:
                one.gradient(env["wgrad"]).add_(grad)
        if not link.skips(0):
            env[link.writes[0]] = dx.view(env[source].shape)

    return work


def _norm_weights(link: Link) -> tuple[Tensor | None, Tensor | None]:
    weight, bias, *_ = [*(one.value for one in link.weights), None, None]
    offset = float(link.attributes.get("offset", 0))
    return (weight if weight is None or offset == 0 else weight + offset), bias
