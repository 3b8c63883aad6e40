"""The same model and tokens the way others train them, on one GPU: forward and backward of one sequence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from fpdt.testing.reference import token_loss_sum

LossSum = Callable[[nn.Module, Tensor, int], Tensor]
"""Of a model and all tokens of a sequence; the last argument is how many pieces."""


def plain_loss(model: nn.Module, tokens: Tensor, shards: int) -> Tensor:
    """All logits at once, as transformers has them."""
    return token_loss_sum(model, tokens)


def tiled_loss(model: Any, tokens: Tensor, shards: int) -> Tensor:
    """DeepSpeed's TiledFusedLogitsLoss: gradients of the head are formed in forward."""
    from deepspeed.runtime.sequence_parallel.ulysses_sp import TiledFusedLogitsLoss

    def loss_of(head: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(head(x).float(), y, reduction="sum")

    hidden = model.model(input_ids=tokens[None, :-1]).last_hidden_state
    head = model.lm_head
    total: Tensor = TiledFusedLogitsLoss.apply(
        loss_of, head, hidden, tokens[None, 1:], None, shards, [head.weight], "sum"
    )
    return total


@contextmanager
def alst(model: Any, shards: int) -> Iterator[None]:
    """Arctic Long Sequence Training's pieces: Ulysses attention over one rank, tiled MLP, checkpoints on the host."""
    from deepspeed.runtime.activation_checkpointing.offload_activations import (
        get_checkpoint_hidden_states_offloading_ctx_manager,
    )
    from deepspeed.runtime.sequence_parallel.ulysses_sp import TiledMLP, UlyssesSPAttentionHF
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    config = model.config
    ulysses = UlyssesSPAttentionHF(
        attn=ALL_ATTENTION_FUNCTIONS["sdpa"],
        batch_size=1,
        attn_head_count=config.num_attention_heads,
        attn_head_size=config.head_dim,
        kv_head_count=config.num_key_value_heads,
        num_hidden_layers=config.num_hidden_layers,
        process_group=dist.group.WORLD,
        seq_length_is_variable=True,
    )
    ulysses.core_attn_implementation = "sdpa"

    def attention(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, *rest: Any, **options: Any) -> Any:
        return ulysses(module, q, k, v, None, *rest, **options)

    mlp = type(model.model.layers[0].mlp)
    whole = mlp.forward
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    mlp.forward = lambda self, x: TiledMLP.apply(whole, self, x, shards, list(self.parameters()))
    ALL_ATTENTION_FUNCTIONS["sdpa"] = attention
    try:
        with get_checkpoint_hidden_states_offloading_ctx_manager():
            yield
    finally:
        mlp.forward = whole
        ALL_ATTENTION_FUNCTIONS["sdpa"] = before


def plain(model: Any, shards: int) -> AbstractContextManager[None]:
    """Transformers as it is."""
    return nullcontext()


PEERS: dict[str, tuple[Callable[[Any, int], AbstractContextManager[None]], LossSum]] = {
    "huggingface": (plain, plain_loss),
    "alst": (alst, tiled_loss),
}


def one_pass(model: Any, tokens: Tensor, peer: str, shards: int) -> float:
    """Forward and backward with checkpointing of every layer; the mean loss. Gradients are those of its sum."""
    around, loss_sum = PEERS[peer]
    model.zero_grad()
    with around(model, shards):
        total = loss_sum(model, tokens, shards)
        total.backward()  # type: ignore[no-untyped-call]
    loss = float(total.detach()) / (tokens.numel() - 1)
    return loss if math.isfinite(loss) else math.nan
