"""The interface every attention backend has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class AttentionError(ValueError):
    """An attention this backend does not have; the message names one that does where there is one."""


@dataclass(frozen=True)
class AttentionConfig:
    """What a layer's attention is, beside causal. `window` in tokens; None: not used."""

    scale: float
    window: int | None = None
    softcap: float | None = None


class AttentionBackend(Protocol):
    """Shapes: q, o, do, dq [rows, heads, d]; k, v, dk, dv [kvRows, kvHeads, d]; lse fp32 [rows, heads], natural log.

    Query head j uses key/value head j // (heads / kvHeads). `causal`: row i of q sees rows 0..i of k and v, which
    needs as many rows of both; without it every row sees all. Any contiguous row range will do; nothing is modified.
    """

    @property
    def name(self) -> str: ...

    def forward(self, q: Tensor, k: Tensor, v: Tensor, config: AttentionConfig, causal: bool) -> tuple[Tensor, Tensor]:
        """(o, lse) of q over these k, v alone."""

    def backward(
        self,
        do: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        o: Tensor,
        lse: Tensor,
        config: AttentionConfig,
        causal: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """This pair's share of (dq, dk, dv), given the final o and lse over all keys."""


def check_config(config: AttentionConfig, backend: str) -> None:
    """Raises AttentionError for attention that is more than scale and causal."""
    for option in ("window", "softcap"):
        value = getattr(config, option)
        if value is not None:
            raise AttentionError(f"attention backend '{backend}' has no {option}, but the model sets {option}={value}")


def check_rows(q: Tensor, k: Tensor, causal: bool) -> None:
    """Raises AttentionError when a causal pair is not square or the heads do not group."""
    if causal and q.shape[0] != k.shape[0]:
        raise AttentionError(
            f"causal attention needs as many query rows as key rows, got {q.shape[0]} and {k.shape[0]}: "
            "the schedule must split the key range at the first query token"
        )
    if q.shape[1] % k.shape[1] != 0:
        raise AttentionError(f"{q.shape[1]} query heads do not divide over {k.shape[1]} key/value heads")


def heads_first(x: Tensor) -> Tensor:
    """[rows, heads, d] -> a view [1, heads, rows, d], as aten's kernels want it."""
    return x.transpose(0, 1).unsqueeze(0)


def rows_first(x: Tensor) -> Tensor:
    """The way back, of [1, heads, rows, d] and of lse [1, heads, rows]."""
    return x.squeeze(0).transpose(0, 1)
