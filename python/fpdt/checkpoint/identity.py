"""Which model a checkpoint is of, and what of it differs from the plan's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fpdt.checkpoint.masters import CheckpointError
from fpdt.plan import Plan
from fpdt.run.weights_disk import own_share

NOT_THE_MODELS = (
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "max_position_embeddings",
)
"""Keys of a Hugging Face config that change neither a weight nor what is computed of it."""

SUMMED_ELEMENTS = 1 << 20
"""At once: the sum needs 24 bytes for each."""


def model_identity(plan: Plan, model: nn.Module) -> dict[str, Any]:
    """JSON-safe: the config as far as it matters, the adapters, shapes of what trains and a sum of what does not.

    A collective where weights are frozen.
    """
    config = {key: value for key, value in plan.model["hfConfig"].items() if key not in NOT_THE_MODELS}
    weights = {
        name: list(getattr(weight, "ds_shape", weight.shape))
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    identity = {
        "family": plan.model["family"],
        "config": config,
        "lora": plan.model.get("lora"),
        "weights": weights,
        "frozenSum": frozen_sum(model),
    }
    found: dict[str, Any] = json.loads(json.dumps(identity, sort_keys=True))
    return found


def check_identity(found: Mapping[str, Any], ours: Mapping[str, Any], where: str) -> None:
    """Raises CheckpointError that names the first difference."""
    difference = next(_differences("", found, ours), None)
    if difference is None:
        return
    path, theirs, here = difference
    raise CheckpointError(
        f"{where} is of another model: {path} is {_shown(theirs)} there, {_shown(here)} in the plan",
        "resume with a plan of the checkpoint's model, or start from its exported weights with --weights",
    )


def frozen_sum(model: nn.Module) -> str | None:
    """A sum over the bits of all weights that do not train, each times its place: the same however they are sharded.

    None where all train; else a collective.
    """
    frozen = [(name, weight) for name, weight in model.named_parameters() if not weight.requires_grad]
    if not frozen:
        return None
    total = torch.zeros((), dtype=torch.int64, device=frozen[0][1].device)
    for number, (_, weight) in enumerate(frozen):
        for start, part in _own_parts(weight):
            total += _placed_sum(part, start) * (2 * number + 1)
    dist.all_reduce(total)
    return f"{int(total) & (2**64 - 1):016x}"


def _own_parts(weight: Any) -> Iterator[tuple[int, Tensor]]:
    """(first element, elements) of what this rank adds of a weight; all ranks together add each element once."""
    rank = dist.get_rank()
    if hasattr(weight, "ds_tensor"):
        part = weight.ds_tensor.ds_numel
        count = max(0, min(part, weight.ds_numel - rank * part))
        with own_share(weight) as share:
            yield from _pieces(share.detach().view(-1)[:count], rank * part)
    else:
        yield from _pieces(weight.detach().reshape(-1)[: None if rank == 0 else 0], 0)


def _pieces(flat: Tensor, start: int) -> Iterator[tuple[int, Tensor]]:
    for first in range(0, flat.numel(), SUMMED_ELEMENTS):
        yield start + first, flat[first : first + SUMMED_ELEMENTS]


def _placed_sum(part: Tensor, start: int) -> Tensor:
    """Modulo 2^64, as int64 counts."""
    bits = part.contiguous().view({2: torch.int16, 4: torch.int32}[part.dtype.itemsize]).to(torch.int64)
    places = torch.arange(start, start + part.numel(), device=part.device)
    return (bits * (2 * places + 1)).sum()


def _differences(path: str, theirs: Any, ours: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for key in sorted({*theirs, *ours}):
            below = f"{path}.{key}" if path else str(key)
            yield from _differences(below, theirs.get(key), ours.get(key))
    elif theirs != ours:
        yield path, theirs, ours


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value)
