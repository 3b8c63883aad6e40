"""What op handlers need from the Hugging Face modules: bindings made once per engine, before the first step.

A handler sees only views and one of these bindings. Everything in them is fixed for the run, except the last three
fields of EngineBinding, which change with the micro-step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fpdt.attention import AttentionBackend, AttentionConfig
from fpdt.plan.data import HeadMap
from fpdt.run.parameters import WeightSlice


class UnsupportedModelError(ValueError):
    """A model, or an option of it, that would train wrongly if it were run; names the option and what works."""


@dataclass(frozen=True)
class Rotary:
    """Rotary embedding: angle = position * inverse_frequency, cos and sin times `scaling`.

    `inverse_frequency` is fp32 [headDim / 2] and was never rounded to the model dtype.
    """

    inverse_frequency: Tensor
    scaling: float


class Family(Protocol):
    """A model family. Shapes as in the plan: x [rows, hidden], positions [rows], q [rows, H, d], k, v [rows, Hkv, d].

    post(attention(pre(x))) is the decoder layer's own forward.
    """

    @property
    def name(self) -> str: ...

    def check(self, config: Mapping[str, Any]) -> None:
        """Raises UnsupportedModelError for a Hugging Face config that would not train exactly."""

    def layers(self, model: nn.Module) -> Sequence[nn.Module]:
        """The decoder layers of that model."""

    def final_norm(self, model: nn.Module) -> nn.Module:
        """The norm before lm_head."""

    def attention(self, layer: nn.Module) -> AttentionConfig:
        """What a decoder layer's attention is."""

    def rotary(self, model: nn.Module, device: torch.device) -> Rotary:
        """The model's rotary embedding."""

    def pre(self, layer: LayerBinding, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v after norm, projection and rotary embedding."""

    def pre_q(self, layer: LayerBinding, x: Tensor, positions: Tensor) -> Tensor:
        """Only q of `pre`."""

    def pre_kv(self, layer: LayerBinding, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Only k and v of `pre`."""

    def post(self, layer: LayerBinding, x: Tensor, o: Tensor) -> Tensor:
        """The layer's output from its input and its attention result o [rows, H, d]."""


@dataclass(frozen=True)
class LayerBinding:
    """One decoder layer.

    `pre_weights` and `post_weights` are its trainable weights with their offsets in the wgrad view that preBwd and
    postBwd get: both start at 0. `weights` are all of them, with offsets in the layer's whole region (emitGrads).
    """

    module: nn.Module
    family: Family
    attention: AttentionConfig
    rotary: Rotary
    pre_weights: tuple[WeightSlice, ...]
    post_weights: tuple[WeightSlice, ...]
    weights: tuple[WeightSlice, ...]


@dataclass(frozen=True)
class Kernels:
    """Implementations of attention that the plan names."""

    attn: AttentionBackend
    attn_bwd: AttentionBackend


@dataclass
class EngineBinding:
    """What embed, loss, embedBwd, emitGrads, loadBatch, rescale, attention and the exchanges need.

    Slices hold trainable weights only. `norm_weights` and `lm_head_weights` have offsets in the views that the loss op
    gets of each (a tied lm_head is the embedding), `head_weights` and `embed_weights` in the region that the head's and
    the embedding's turns emit; a tied weight is the embedding's alone. `tables` are the names of the plan's tables, in
    the order in which loadBatch writes them.
    """

    embed: nn.Embedding
    norm: nn.Module
    lm_head: nn.Linear
    norm_weights: tuple[WeightSlice, ...]
    lm_head_weights: tuple[WeightSlice, ...]
    head_weights: tuple[WeightSlice, ...]
    embed_weights: tuple[WeightSlice, ...]
    kernels: Kernels
    head_map: HeadMap
    tables: tuple[str, ...]
    emit: Callable[[Tensor], None]
    """Called by emitGrads with a flat fp32 region. The engine knows which module's turn it is."""
    loss_factor: float = 1.0
    """Gradients of a token's loss are formed times this: world / n * lossScale. Set before each micro-step."""
    quotient: float = 1.0
    """What `rescale` multiplies by: upstream gradient of the loss / the one assumed. Set before the head's backward."""
    batch: Mapping[str, Tensor] = field(default_factory=dict)
    """Host tensors by table, of the micro-step that runs."""
