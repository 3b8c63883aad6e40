"""A peer on the same card: time of forward and backward, memory, and its gradients as ours are compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fpdt.data.whole import plan_sequences
from fpdt.models.plan_model import plan_model
from fpdt.plan import Plan, load_plan
from fpdt.run.engine import start_deepspeed
from fpdt.run.ranks import join_process_group
from gpu.context import Context
from gpu.peers import one_pass
from gpu.sketch import Sketches, sketch, with_loss

WARM, TIMED = 1, 1


def run(context: Context) -> None:
    """A peer that has not the memory is no failure of ours: it leaves a line."""
    name, peer = context.sizes["plan"], context.sizes["peer"]
    plan = load_plan(context.plan_path(name))
    join_process_group(plan)
    start_deepspeed()
    tokens = plan_sequences(plan, context.tokens_of(name)).whole(0, 0, 0).to(context.device.torch)
    model = checkpointed(plan, context.device.torch)
    context.device.reset_memory()
    try:
        train(context, peer, model, tokens, name)
    except torch.OutOfMemoryError as error:
        facts = {"seqLen": tokens.numel() - 1, "allocator": context.device.memory()}
        context.lines.add("peer", peer=peer, plan=name, outOfMemory=str(error)[:300], **facts)


def train(context: Context, peer: str, model: Any, tokens: Tensor, name: str) -> None:
    shards = context.sizes["shards"]
    losses: list[float] = []
    times = [context.seconds(lambda: losses.append(one_pass(model, tokens, peer, shards))) for _ in range(WARM + TIMED)]
    facts = {"losses": losses, "seconds": times[WARM:], "allocator": context.device.memory()}
    context.lines.add("peer", peer=peer, plan=name, seqLen=tokens.numel() - 1, **facts)
    found = with_loss(sketches_of(model, tokens.numel() - 1), losses[0])
    context.compare(f"loss and gradients of {peer}", context.reference_of(name), found)


def checkpointed(plan: Plan, device: torch.device) -> Any:
    """Transformers' model with the weights of the plan's seed, every layer recomputed in backward."""
    model: Any = plan_model(plan, None, device=device, attention="sdpa", with_buffers=True)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    return model


def sketches_of(model: nn.Module, num_tokens: int) -> Sketches:
    """Of the gradients of the mean loss."""
    return {
        name: sketch(name, weight.grad.float() / num_tokens)
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
