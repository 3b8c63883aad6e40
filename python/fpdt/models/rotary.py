"""The rotary embedding among the primitives of a model's programs."""

from __future__ import annotations

import torch
from torch import Tensor

from fpdt.models.link import Env, Link, Work
from fpdt.run.parameters import ParameterError


def angles(link: Link) -> Work:
    """cos and sin side by side [rows, dims]. Formed in fp32 by absolute position, as Hugging Face does."""
    (source,), (target,), rotary, dtype = link.reads, link.writes, link.rotary, link.dtype
    assert rotary is not None
    half, dims = rotary.inverse_frequency.numel(), int(link.attributes["dims"])
    if 2 * half != dims:
        raise ParameterError(f"the model's rotary embedding turns {2 * half} dimensions, the plan says {dims}")

    def work(env: Env) -> None:
        positions = env[source]
        both = torch.empty(positions.shape[0], 2 * half, dtype=dtype, device=positions.device)
        turned = positions.float()[:, None] * rotary.inverse_frequency
        both[:, :half].copy_(turned.cos().mul_(rotary.scaling))
        both[:, half:].copy_(turned.sin_().mul_(rotary.scaling))
        env[target] = both

    return work


def rope(link: Link) -> Work:
    return _rotation(link, forward=True)


def rope_bwd(link: Link) -> Work:
    return _rotation(link, forward=False)


def _rotation(link: Link, forward: bool) -> Work:
    """`halves`: dimension i turns with i + dims / 2; `pairs`: 2i with 2i + 1. Dimensions from `dims` on stay."""
    (source, turned), (target,) = link.reads, link.writes
    head_dim, dims = int(link.attributes["headDim"]), int(link.attributes["dims"])
    in_pairs = link.attributes["style"] == "pairs"
    in_one_pass = link.fused.rope == "addcmul"

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        if in_pairs:
            return x[..., 0:dims:2], x[..., 1:dims:2]
        return x[..., : dims // 2], x[..., dims // 2 : dims]

    def work(env: Env) -> None:
        x = env[source].view(env[source].shape[0], -1, head_dim)
        cos, sin = env[turned][:, None, : dims // 2], env[turned][:, None, dims // 2 :]
        y = torch.empty_like(x)
        (x1, x2), (y1, y2) = parts(x), parts(y)
        torch.mul(x1, cos, out=y1)
        torch.mul(x2, cos, out=y2)
        if in_one_pass:
            y1.addcmul_(x2, sin, value=-1 if forward else 1)
            y2.addcmul_(x1, sin, value=1 if forward else -1)
        elif forward:
            y1.sub_(x2 * sin)
            y2.add_(x1 * sin)
        else:
            y1.add_(x2 * sin)
            y2.sub_(x1 * sin)
        if dims < head_dim:
            y[..., dims:].copy_(x[..., dims:])
        env[target] = y.view(env[source].shape)

    return work
