"""A Hugging Face model, built unit by unit: a rank that shards never holds more than its shards and the largest unit.

A unit is a decoder layer, or a module beside them with weights of its own. Its weights are made, or read, cast, and
sharded before the next unit is touched. Weights that are made depend on the seed and the module's name alone: they are
the same on every rank, at every world size and in every reference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

from fpdt.models.config import config_of
from fpdt.models.weights import WeightFolder, match_names
from fpdt.run.arena import TORCH_DTYPES

DTYPES = {name: dtype for name, dtype in TORCH_DTYPES.items() if dtype.is_floating_point}
"""Of weights, by the names that plans have for them."""
Attention = Literal["eager", "sdpa"]
"""Of the model's own forward, as transformers calls it."""
Shard = Callable[[nn.Module, str], None]
"""Of model and path of a unit that is complete: leaves of its weights what this rank keeps."""


def build_model(
    hf_config: Mapping[str, Any],
    seed: int,
    dtype: torch.dtype,
    *,
    layers: str,
    folder: WeightFolder | None = None,
    shard: Shard | None = None,
    device: torch.device | str = "cpu",
    attention: Attention = "eager",
    with_buffers: bool = False,
) -> nn.Module:
    """The model with the weights of `folder`, or initialised as transformers does, in fp32, then cast to `dtype`.

    `layers` is the module that holds the decoder layers. Buffers (rotary frequencies, causal masks) are left empty
    unless `with_buffers`: a model whose layers are streamed uses none. Only weights are cast: `model.to(bfloat16)`
    would round the frequencies too. Raises WeightsError where the folder's weights are not the model's.
    """
    config = config_of({**hf_config, "dtype": "float32", "use_cache": False})
    # A model whose scores may have a softcap has them written out only.
    supports_sdpa = getattr(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], "_supports_sdpa", False)
    config._attn_implementation = attention if supports_sdpa else "eager"
    build: Callable[..., nn.Module] = AutoModelForCausalLM.from_config
    with torch.device(device if with_buffers else "meta"):
        model = build(config)
    names = None if folder is None else _names_in(model, folder)
    builder = _Builder(model, seed, dtype, torch.device(device), folder, names or {})
    for path, modules in _units(model, layers):
        builder.fill(modules)
        if shard is not None:
            shard(model, path)
    if not with_buffers:
        _empty_buffers(model, device)
    return model


def seed_of(seed: int, path: str) -> int:
    """Of a module by its name, so that its weights are the same in whatever order modules are made."""
    digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """In place, one weight at a time."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _names_in(model: nn.Module, folder: WeightFolder) -> dict[str, str]:
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    return match_names(model, shapes, folder)


Named = list[tuple[str, nn.Module]]


def _units(model: nn.Module, layers: str) -> Iterator[tuple[str, Named]]:
    """Units with their modules: in the model's order, so that a tied weight is made where its first name is."""
    inside = f"{layers}."
    for name, module in model.named_modules():
        if name.startswith(inside):
            if "." not in name.removeprefix(inside):
                yield name, list(module.named_modules(prefix=name))
        elif any(True for _ in module.parameters(recurse=False)):
            yield name, [(name, module)]


class _Builder:
    def __init__(
        self,
        model: nn.Module,
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
        folder: WeightFolder | None,
        names: Mapping[str, str],
    ) -> None:
        self._model: Any = model
        self._seed, self._dtype, self._device = seed, dtype, device
        self._folder, self._names = folder, names
        self._made: dict[int, nn.Parameter] = {}
        """By the weight it takes the place of, so that a tied weight stays one."""
        self._replaced: list[nn.Parameter] = []
        """Kept, or another may be given the number of one that is gone."""

    def fill(self, modules: Named) -> None:
        """Gives the weights of a unit's modules their values, in the run's dtype on its device."""
        fresh = [one for path, module in modules for one in self._replace(path, module)]
        if self._folder is None:
            self._initialise(modules)
        # The smallest first: least is held in both dtypes at once, and how much does not depend on the module's order.
        for parameter in sorted(fresh, key=torch.Tensor.numel):
            parameter.data = parameter.data.to(device=self._device, dtype=self._dtype)
            # transformers initialises no weight that says so: not one that is tied to this, either.
            parameter._is_hf_initialized = True  # type: ignore[attr-defined]

    def _replace(self, path: str, module: nn.Module) -> Iterator[nn.Parameter]:
        for key, old in list(module._parameters.items()):
            if old is None:
                continue
            if id(old) not in self._made:
                value = self._value(f"{path}.{key}", old)
                self._made[id(old)] = nn.Parameter(value, requires_grad=old.requires_grad)
                self._replaced.append(old)
                yield self._made[id(old)]
            module._parameters[key] = self._made[id(old)]

    def _value(self, name: str, old: nn.Parameter) -> torch.Tensor:
        if self._folder is None:
            return torch.empty(old.shape, dtype=torch.float32, device="cpu")
        return self._folder.tensor(self._names[name]).to(self._dtype)

    def _initialise(self, modules: Named) -> None:
        """Children first, as transformers does, since a layer may make some of theirs anew."""
        for path, module in reversed(modules):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of(self._seed, path))
                self._model._init_weights(module)


def _empty_buffers(model: nn.Module, device: torch.device | str) -> None:
    for module in model.modules():
        for key, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.is_meta:
                module._buffers[key] = torch.empty(0, dtype=buffer.dtype, device=device)
