"""Attention kernels against fp64, forward, merged and backward; then their rates."""

from __future__ import annotations

import statistics
import traceback
from typing import Any

import torch

from fpdt.attention import CAUSAL, AttentionBackend, AttentionConfig, backend_named
from gpu.attention_cases import Case, attention_cases, run_case
from gpu.context import Context


def run(context: Context) -> None:
    for name in context.sizes["kernels"]:
        kernel = backend_named(name)
        for case in attention_cases(context.table):
            check_case(context, kernel, case)
        for shape in context.sizes["rates"]:
            measure(context, kernel, shape)


def check_case(context: Context, kernel: AttentionBackend, case: Case) -> None:
    what = f"{kernel.name} {case.name}"
    if case.mask_name() not in kernel.masks:
        context.lines.add("notSupported", what=what, mask=case.mask_name())
        return
    try:
        found = run_case(case, kernel, context.device.torch, torch.bfloat16)
    except Exception:
        context.lines.check(what, False, traceback=traceback.format_exc()[-3000:])
        return
    context.compare(what, f"attention-{case.name}", found, context.sizes["bound"])


def measure(context: Context, kernel: AttentionBackend, shape: dict[str, Any]) -> None:
    """Causal squares; FLOPs are those of the pairs that are seen, backward 2.5 times as many as forward."""
    rows, heads, kv_heads, dim = (shape[name] for name in ("rows", "heads", "kvHeads", "headDim"))
    device, config = context.device.torch, AttentionConfig(scale=dim**-0.5)
    q, do = (torch.randn(rows, heads, dim, dtype=torch.bfloat16, device=device) for _ in range(2))
    k, v = (torch.randn(rows, kv_heads, dim, dtype=torch.bfloat16, device=device) for _ in range(2))
    o, lse = kernel.forward(q, k, v, config, CAUSAL, 0, 0)
    kernel.backward(do, q, k, v, o, lse, config, CAUSAL, 0, 0)
    calls = (
        lambda: kernel.forward(q, k, v, config, CAUSAL, 0, 0),
        lambda: kernel.backward(do, q, k, v, o, lse, config, CAUSAL, 0, 0),
    )
    repeats = range(context.sizes["repeats"])
    forward, backward = (statistics.median(context.seconds(call) for _ in repeats) for call in calls)
    flops = 2.0 * rows * rows * heads * dim
    context.lines.add(
        "attentionRate",
        kernel=kernel.name,
        **shape,
        forwardSeconds=forward,
        backwardSeconds=backward,
        forwardTflops=flops / forward / 1e12,
        backwardTflops=2.5 * flops / backward / 1e12,
    )
