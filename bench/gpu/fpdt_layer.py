"""One attention block of DeepSpeed's FPDT (deepspeed/sequence/fpdt_layer.py), and what it must give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from gpu.seeded import power_of_two, seeded
from gpu.sketch import Sketches, sketch

ROPE_THETA = 10_000.0
Block = dict[str, Tensor]


def block_inputs(sizes: dict[str, Any], tokens: int, device: torch.device, dtype: torch.dtype) -> Block:
    """Hidden states [tokens, 1, hidden], weights of q|k|v and of the output, a gradient of the output."""
    hidden, width = sizes["hidden_size"], sizes["heads"] * sizes["headDim"]
    rows = (sizes["heads"] + 2 * sizes["kvHeads"]) * sizes["headDim"]
    scale = power_of_two(hidden**-0.5)
    return {
        "x": seeded("block/x", (tokens, 1, hidden), device, dtype).requires_grad_(),
        "qkv": seeded("block/qkv", (rows, hidden), device, dtype, scale).requires_grad_(),
        "bias": torch.zeros(rows, device=device, dtype=dtype, requires_grad=True),
        "out": seeded("block/out", (hidden, width), device, dtype, scale).requires_grad_(),
        "dy": seeded("block/dy", (tokens, 1, hidden), device, dtype),
    }


def random_inputs(sizes: dict[str, Any], tokens: int, device: torch.device) -> Block:
    """The same shapes, made where they are wanted: for times."""
    small = block_inputs(sizes, 1, device, torch.bfloat16)
    large = {
        name: torch.randn(tokens, *small[name].shape[1:], dtype=torch.bfloat16, device=device) for name in ("x", "dy")
    }
    return {**small, "dy": large["dy"], "x": large["x"].requires_grad_()}


def plain_block(block: Block, sizes: dict[str, Any]) -> Tensor:
    """What the block computes, written plainly."""
    heads, kv_heads, dim = sizes["heads"], sizes["kvHeads"], sizes["headDim"]
    projected = block["x"][:, 0] @ block["qkv"].T
    q, k, v = (
        part.reshape(len(part), -1, dim).transpose(0, 1)
        for part in torch.split(projected, [heads * dim, kv_heads * dim, kv_heads * dim], dim=1)
    )
    cos, sin = (table[:, 0, 0].to(q.dtype) for table in rotary_tables(len(projected), dim, q.device))
    q, k = q * cos + _rotate_half(q) * sin, k * cos + _rotate_half(k) * sin
    o = functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, enable_gqa=True)[0]
    return (o.transpose(0, 1).flatten(1) @ block["out"].T)[:, None]


def deepspeed_block(sizes: dict[str, Any], block: Block, chunk: int) -> Any:
    """FPDT_Attention around the block's weights, chunks offloaded to the host, with torch's FlashAttention-2."""
    from deepspeed.sequence import fpdt_layer
    from packaging.version import Version

    fpdt_layer._flash_attn_forward, fpdt_layer._flash_attn_backward = _forward, _backward
    fpdt_layer.flash_attn_version = Version("2.7.0")
    config = SimpleNamespace(
        kv_channels=sizes["headDim"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["kvHeads"],
        hidden_size=sizes["hidden_size"],
        attention_dropout=0.0,
    )
    module = fpdt_layer.FPDT_Attention(
        config, block["qkv"], block["bias"], block["out"], None, dist.group.WORLD, chunk_size=chunk
    )
    tables = rotary_tables(len(block["x"]), sizes["headDim"], block["x"].device)
    cos_sin = tuple(table.to(block["x"].dtype) for table in tables)
    return lambda: module(block["x"], None, None, cos_sin)[0]


def sketches_of(output: Tensor, block: Block) -> Sketches:
    """Of the output and, after its backward, of the gradients."""
    found = {"y": output.detach()}
    for name in ("x", "qkv", "out"):
        gradient = block[name].grad
        if gradient is not None:
            found[f"d{name}"] = gradient
    return {name: sketch(f"block/{name}", tensor) for name, tensor in found.items()}


def rotary_tables(rows: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, [rows, 1, 1, dim] in fp64."""
    steps = torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim
    angles = torch.arange(rows, dtype=torch.float64, device=device)[:, None] * ROPE_THETA**-steps
    whole = torch.cat((angles, angles), dim=1)[:, None, None]
    return whole.cos(), whole.sin()


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def _forward(q: Tensor, k: Tensor, v: Tensor, dropout: float, scale: float, causal: bool, **_: Any) -> tuple[Any, ...]:
    """flash_attn 2.7's _flash_attn_forward, of torch's op."""
    found = torch.ops.aten._flash_attention_forward(
        q, k, v, None, None, q.shape[1], k.shape[1], dropout, causal, False, scale=scale
    )
    return found[0], found[1], None, None


def _backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    dropout: float,
    scale: float,
    causal: bool,
    *_: Any,
    **__: Any,
) -> None:
    """flash_attn 2.7's _flash_attn_backward, which writes into dq, dk and dv."""
    state = torch.empty(0, dtype=torch.uint64, device=q.device)
    found = torch.ops.aten._flash_attention_backward(
        do, q, k, v, o, lse.contiguous(), None, None, q.shape[1], k.shape[1], dropout, causal, state, state, scale=scale
    )
    for target, gradient in zip((dq, dk, dv), found, strict=True):
        target.copy_(gradient)
