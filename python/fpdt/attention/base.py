"""The interface every attention backend has, and the masks it may be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from fpdt.errors import FpdtError

MaskKind = Literal["full", "causal", "window"]
MaskName = Literal["full", "square", "rectangle", "window"]
"""What a backend can do: causal is `square` with as many keys as queries and `rectangle` with more."""


class AttentionError(FpdtError):
    """An attention this backend does not have; the hint names one that does where there is one."""


@dataclass(frozen=True)
class Mask:
    """Which keys a query sees, by global positions.

    `full`: all of them. `causal`: key <= query, where keys and queries end together. `window`: key <= query and
    query - key < window, for keys that end with the queries or before. Raises AttentionError for a window that is
    missing, not wanted or not positive.
    """

    kind: MaskKind
    window: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("full", "causal", "window"):
            raise AttentionError(f"unknown mask '{self.kind}'", "masks are full, causal and window")
        if (self.kind == "window") != (self.window is not None):
            raise AttentionError(f"mask '{self.kind}' with window={self.window}", "only kind 'window' has a window")
        if self.window is not None and self.window < 1:
            raise AttentionError(f"a window of {self.window} tokens", "a query sees itself: a window is 1 or more")


FULL = Mask("full")
CAUSAL = Mask("causal")


@dataclass(frozen=True)
class AttentionConfig:
    """What a layer's attention is, beside the mask. With a softcap scores are softcap * tanh(scale * q k / softcap)."""

    scale: float
    softcap: float | None = None


class AttentionBackend(Protocol):
    """Shapes: q, o, do, dq [rows, heads, d]; k, v, dk, dv [kvRows, kvHeads, d]; lse fp32 [rows, heads], natural log.

    lse lies in memory as [heads, rows], which is how the kernels have it; any other layout costs a copy. Query head j
    uses key/value head j // (heads / kvHeads). `q_start` and `kv_start` are the global positions of row 0 of q and of
    k. A row that sees no key has o = 0, lse = -inf and no part in the gradients. Nothing is modified but `out`.
    Both methods raise AttentionError for what the backend does not have.
    """

    @property
    def name(self) -> str: ...

    @property
    def masks(self) -> frozenset[MaskName]: ...

    @property
    def softcap(self) -> bool:
        """Whether it can bound the scores."""

    def require(self, device: torch.device) -> None:
        """Makes the kernel ready. Raises AttentionError where it is not here, or not for this device; says what is."""

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        config: AttentionConfig,
        mask: Mask,
        q_start: int,
        kv_start: int,
        *,
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(o, lse) of q over these k, v alone; o is `out`, which is contiguous, where the kernel can write there."""

    def backward(
        self,
        do: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        o: Tensor,
        lse: Tensor,
        config: AttentionConfig,
        mask: Mask,
        q_start: int,
        kv_start: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """These keys' share of (dq, dk, dv), given the final o and lse over all keys."""


def check_call(
    backend: AttentionBackend,
    q: Tensor,
    k: Tensor,
    config: AttentionConfig,
    mask: Mask,
    q_start: int,
    kv_start: int,
) -> None:
    """Raises AttentionError for shapes, positions, a mask or an option that the backend cannot do."""
    if config.softcap is not None and not backend.softcap:
        raise AttentionError(
            f"attention backend '{backend.name}' has no softcap, but the model has {config.softcap}",
            "plan with kernels 'reference'",
        )
    if q.shape[1] % k.shape[1] != 0:
        raise AttentionError(f"{q.shape[1]} query heads do not divide over {k.shape[1]} key/value heads")
    queries, keys = (q_start, q_start + q.shape[0]), (kv_start, kv_start + k.shape[0])
    name = mask_name(mask, queries, keys)
    if name not in backend.masks:
        raise AttentionError(
            f"attention backend '{backend.name}' has no mask '{name}' (queries {queries}, keys {keys}), "
            f"only {', '.join(sorted(backend.masks))}",
            "plan with kernels 'reference', which has every mask",
        )


def check_half(backend: AttentionBackend, q: Tensor, multiple: int, most: int) -> None:
    """Raises AttentionError for what a kernel of half precision does not take; head dims: multiples up to `most`."""
    if q.dtype not in (torch.bfloat16, torch.float16):
        raise AttentionError(
            f"attention backend '{backend.name}' takes bfloat16 or float16, got {q.dtype}", "use bfloat16"
        )
    if q.shape[2] % multiple or q.shape[2] > most:
        raise AttentionError(
            f"attention backend '{backend.name}' takes head dims of {multiple}, {2 * multiple}, .. {most}, "
            f"got {q.shape[2]}",
            "plan with kernels 'reference'",
        )


def mask_name(mask: Mask, queries: tuple[int, int], keys: tuple[int, int]) -> MaskName:
    """What a backend must have for a mask over these ranges. Raises AttentionError for ranges that no mask fits."""
    if mask.kind == "full":
        return "full"
    if mask.kind == "window":
        if keys[1] > queries[1]:
            raise AttentionError(f"keys {keys} of a window must not end after its queries {queries}")
        return "window"
    if keys[1] != queries[1] or keys[0] > queries[0]:
        raise AttentionError(
            f"causal attention needs keys that end with the queries and begin no later, got {keys} for {queries}",
            "split the keys at the first query: those before are seen by all queries (mask full)",
        )
    return "square" if keys == queries else "rectangle"


def heads_first(x: Tensor) -> Tensor:
    """[rows, heads, d] -> a view [1, heads, rows, d], as aten's kernels want it."""
    return x.transpose(0, 1).unsqueeze(0)


def rows_first(x: Tensor) -> Tensor:
    """The way back, of [1, heads, rows, d] and of lse [1, heads, rows]."""
    return x.squeeze(0).transpose(0, 1)


def require_device(backend: AttentionBackend, device: torch.device, expected: str) -> None:
    """Raises AttentionError for a device of another type."""
    if device.type != expected:
        raise AttentionError(
            f"attention backend '{backend.name}' runs on {expected}, not on {device.type}",
            "plan for this device, or with kernels 'reference', which run everywhere",
        )
