"""Gradients as a user gets them before clipping: full tensors under Hugging Face names, in a safetensors file."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn


def gradient_file(directory: str | Path, step: int) -> Path:
    """Where the gradients of an optimizer step are, in a run's directory and in a reference's."""
    return Path(directory) / f"step-{step:06d}.safetensors"


def dump_gradients(model: nn.Module, directory: str | Path, step: int, loss_scale: float) -> None:
    """Writes the step's gradients from rank 0; a collective that every rank calls between backward and step.

    They are averaged over ranks and accumulation steps, not clipped yet, and freed of the loss scale. fp32; a tied
    weight is there once, under the embedding's name.
    """
    from deepspeed.utils import safe_get_full_grad  # slow to import, and a reference needs only write_gradients

    gradients: dict[str, Tensor] = {}
    is_writer = dist.get_rank() == 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        gradient = safe_get_full_grad(parameter)
        if gradient is None:
            raise RuntimeError(f"DeepSpeed holds no gradient of {name}; take gradients between backward and step")
        if is_writer:
            gradients[name] = gradient.detach().to("cpu", torch.float32, copy=True).div_(loss_scale)
    if is_writer:
        write_gradients(gradients, directory, step)


def write_gradients(gradients: dict[str, Tensor], directory: str | Path, step: int) -> None:
    path = gradient_file(directory, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: gradient.contiguous() for name, gradient in gradients.items()}, path)
