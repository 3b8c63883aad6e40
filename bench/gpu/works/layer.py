"""DeepSpeed's FPDT attention: right at a small size, then timed at a large one."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from fpdt.plan import load_plan
from fpdt.run.engine import start_deepspeed
from fpdt.run.ranks import join_process_group
from gpu.context import Context
from gpu.fpdt_layer import Block, block_inputs, deepspeed_block, random_inputs, sketches_of


def run(context: Context) -> None:
    from deepspeed.accelerator import get_accelerator

    join_process_group(load_plan(next(iter(sorted(context.staging.glob("*.plan.json"))))))
    start_deepspeed()
    context.device.lend_streams(get_accelerator())
    check(context)
    measure(context)


def check(context: Context) -> None:
    sizes = context.table["layer"]
    block = block_inputs(sizes, sizes["checkTokens"], context.device.torch, torch.bfloat16)
    output = deepspeed_block(sizes, block, sizes["checkChunk"])()
    output.backward(block["dy"])
    context.compare("an attention block of DeepSpeed's FPDT", "block", sketches_of(output, block))


def measure(context: Context) -> None:
    """Forward, and backward; a run that checkpoints layers does the forward twice."""
    sizes = context.table["layer"]
    block = random_inputs(sizes, sizes["tokens"], context.device.torch)
    layer = deepspeed_block(sizes, block, sizes["chunk"])
    context.device.reset_memory()
    times = [one_pass(context, layer, block) for _ in range(1 + context.sizes["repeats"])][1:]
    forward, backward = (statistics.median(column) for column in zip(*times, strict=True))
    context.lines.add(
        "layer",
        peer="deepspeed-fpdt",
        seqLen=sizes["tokens"],
        chunkTokens=sizes["chunk"],
        forwardSeconds=forward,
        backwardSeconds=backward,
        allocator=context.device.memory(),
    )


def one_pass(context: Context, layer: Any, block: Block) -> tuple[float, float]:
    outputs: list[Any] = []
    forward = context.seconds(lambda: outputs.append(layer()))
    return forward, context.seconds(lambda: outputs[0].backward(block["dy"]))
