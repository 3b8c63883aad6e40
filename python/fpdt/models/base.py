"""What op handlers need from the Hugging Face modules: bindings made once per engine, before the first step.

A handler sees only views and one of these bindings. Everything in them is fixed for the run, except the last three
fields of EngineBinding and its documents, which change with the micro-step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from fpdt.attention import AttentionBackend, AttentionConfig, Documents
from fpdt.models.interpreter import LinkedCode
from fpdt.plan.data import HeadMap
from fpdt.plan.nouns import PLAIN, FusedKernels
from fpdt.run.parameters import WeightSlice


@dataclass(frozen=True)
class LayerBinding:
    """One decoder layer. post(attention(pre(x))) is its own forward.

    Views of the code: x, y [rows, hidden], positions [rows], q, o [rows, H d], k, v [rows, Hkv d], their gradients, and
    the layer's wgrad region. `weights` are those that train, with their places in it.
    """

    module: nn.Module
    attention: AttentionConfig
    pre: LinkedCode
    pre_q: LinkedCode
    pre_kv: LinkedCode
    pre_bwd: LinkedCode
    post: LinkedCode
    post_bwd: LinkedCode
    post_keep: LinkedCode
    post_bwd_kept: LinkedCode
    weights: tuple[WeightSlice, ...]


@dataclass(frozen=True)
class HeadBinding:
    """The final norm, x to y and back, and lm_head, whose own module is not called."""

    norm: LinkedCode
    norm_bwd: LinkedCode
    weight: nn.Parameter
    bias: nn.Parameter | None
    scale: float
    softcap: float | None


@dataclass(frozen=True)
class Kernels:
    """Implementations that the plan names."""

    attn: AttentionBackend
    attn_bwd: AttentionBackend
    fused: FusedKernels = PLAIN


@dataclass
class EngineBinding:
    """What embed, loss, embedBwd, emitGrads, loadBatch, rescale, attention and the exchanges need.

    Slices hold trainable weights only. `lm_head_weights` have offsets in the view that the loss op gets of it (a tied
    lm_head is the embedding), `head_weights` and `embed_weights` in the region that the head's and the embedding's
    turns emit; a tied weight is the embedding's alone. `outside` are weights, frozen ones too, that a turn of a module
    uses without having them. `tables` are the names of the plan's tables, in the order in
    which loadBatch writes them.
    """

    embed_module: nn.Module
    head_module: nn.Module
    embed: LinkedCode
    embed_bwd: LinkedCode
    head: HeadBinding
    lm_head_weights: tuple[WeightSlice, ...]
    head_weights: tuple[WeightSlice, ...]
    embed_weights: tuple[WeightSlice, ...]
    outside: tuple[tuple[nn.Module, nn.Parameter], ...]
    kernels: Kernels
    head_map: HeadMap
    tables: tuple[str, ...]
    emit: Callable[[Tensor], None]
    """Called by emitGrads with a flat fp32 region. The engine knows which module's turn it is."""
    documents: Documents | None = None
    """Of the micro-step that runs; None where the plan is not made for packing."""
    loss_factor: float = 1.0
    """Gradients of a token's loss are formed times this: world / n * lossScale. Set before each micro-step."""
    quotient: float = 1.0
    """What `rescale` multiplies by: upstream gradient of the loss / the one assumed. Set before the head's backward."""
    watch_losses: Callable[[Tensor, Tensor], None] | None = None
    """Told the losses of some tokens and their labels, a view of the table."""
    batch: Mapping[str, Tensor] = field(default_factory=dict)
    """Host tensors by table, of the micro-step that runs."""
