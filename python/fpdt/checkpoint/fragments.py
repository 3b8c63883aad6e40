"""The training state of parameters, by name and range: what a rank holds where it lies, to be written or filled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fpdt.checkpoint.masters import CheckpointError, Master, Piece, masters_of
from fpdt.checkpoint.staging import State

WEIGHT = "weight"
"""The fp32 weight, beside the names that the optimizer has for its states."""


@dataclass(frozen=True)
class Fragment:
    """Elements [start, end) of a flattened parameter. `states` are by name 1-D views of the live tensors, or places on
    a disk; `scalars` what the optimizer keeps once for all of them, such as Adam's number of steps."""

    name: str
    start: int
    end: int
    states: Mapping[str, State]
    scalars: Mapping[str, float]


def owned_fragments(engine: Any, model: nn.Module, rank: int, world_size: int) -> Iterator[Fragment]:
    """What this rank writes: all ranks together have each element of each parameter that trains once.

    Under ZeRO it is what the rank keeps; without, where all ranks keep everything, an equal range of each parameter.
    """
    masters = masters_of(engine.optimizer, model)
    for master in masters.all:
        for piece in master.pieces:
            owned = _share(piece, rank, world_size) if masters.is_replicated else piece
            if owned.numel > 0:
                yield _fragment(master, owned, masters.base)


def held_fragments(engine: Any, model: nn.Module, names: Sequence[str]) -> Iterator[Fragment]:
    """All that this rank keeps, with states of these names: made, as zeros, where the optimizer has not stepped yet.

    Raises OSError for those of a disk that cannot be made there.
    """
    masters = masters_of(engine.optimizer, model)
    for master in masters.all:
        _make_states(masters.base, master, names)
        for piece in master.pieces:
            yield _fragment(master, piece, masters.base)


def set_scalars(engine: Any, model: nn.Module, scalars: Mapping[str, Mapping[str, float]]) -> None:
    """Gives every master what was kept once for its parameters; `scalars` by name of the parameter, then of the state.

    Raises CheckpointError where parameters of one master differ.
    """
    masters = masters_of(engine.optimizer, model)
    for master in masters.all:
        state = masters.base.state[master.tensor]
        found = {piece.name: scalars[piece.name] for piece in master.pieces}
        for name, value in _agreed(found).items():
            kept = state.get(name)
            if isinstance(kept, Tensor):
                kept.fill_(value)
            else:
                state[name] = int(value) if float(value).is_integer() else value


def _share(piece: Piece, rank: int, world_size: int) -> Piece:
    first, last = (piece.numel * one // world_size for one in (rank, rank + 1))
    return Piece(piece.name, piece.start + first, last - first, piece.offset + first)


def _fragment(master: Master, piece: Piece, base: torch.optim.Optimizer) -> Fragment:
    states, scalars = {WEIGHT: master.part(master.tensor, piece)}, {}
    for name, value in base.state.get(master.tensor, {}).items():
        if master.has_its_shape(value):
            states[name] = master.part(value, piece)
        else:
            scalars[name] = float(value)
    return Fragment(piece.name, piece.start, piece.start + piece.numel, states, scalars)


def _make_states(base: torch.optim.Optimizer, master: Master, names: Sequence[str]) -> None:
    """As the optimizer would in its first step, but for `step`, which is a tensor in those of PyTorch alone."""
    tensor = master.tensor
    state = base.state[tensor]
    for name in names:
        if name in state or name == WEIGHT:
            continue
        if master.on_disk is not None:
            state[name] = master.on_disk.make_state(name)
        else:
            state[name] = torch.zeros_like(tensor, memory_format=torch.preserve_format, requires_grad=False)
    if len(state) > 0 and "step" not in state and type(base).__module__.startswith("torch.optim"):
        is_on_device = any(group.get("capturable") or group.get("fused") for group in base.param_groups)
        state["step"] = torch.zeros((), dtype=torch.float32, device=tensor.device if is_on_device else "cpu")


def _agreed(found: Mapping[str, Mapping[str, float]]) -> Mapping[str, float]:
    first_name, first = next(iter(found.items()), ("", {}))
    for name, scalars in found.items():
        if scalars != first:
            raise CheckpointError(
                f"the checkpoint has {dict(first)} for {first_name} and {dict(scalars)} for {name}, which this ZeRO "
                "stage keeps once for both",
                "resume under the ZeRO stage that the checkpoint was written under",
            )
    return first
