"""cuDNN's attention as PyTorch ships it for CUDA, called by its aten name because it takes and gives lse."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from fpdt.attention.base import (
    AttentionConfig,
    AttentionError,
    Mask,
    MaskName,
    check_call,
    check_half,
    heads_first,
    require_device,
    rows_first,
)

OLDEST_CUDNN = 90000
"""torch has no attention of an older one (sdp_utils.cpp, can_use_cudnn_attention)."""
_TILE = 128


class CudnnAttention:
    """bf16 and fp16; heads are grouped in the kernel. Its causal mask is aligned at the top left.

    Backward on compute capability 9.0 makes NaN of dq without a mask where 64 keys are left over a tile of 128 and lse
    is below -88.7 (pytorch issue 196678): such keys are refused, plans have chunks of whole tiles.
    """

    name = "cudnn"
    masks: frozenset[MaskName] = frozenset({"full", "square"})
    softcap = False

    def require(self, device: torch.device) -> None:
        require_device(self, device, "cuda")
        version = _cudnn_version()
        if version is None or version < OLDEST_CUDNN:
            found = "none" if version is None else f"cuDNN {version}"
            raise AttentionError(
                f"attention backend '{self.name}' needs cuDNN 9 or later, torch {torch.__version__} has {found}",
                "install a PyTorch wheel for CUDA with cuDNN 9, or plan without it: --attention flash2",
            )

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
        self._check(q, k, config, mask, q_start, kv_start)
        o, lse = _forward(q, k, v, config.scale, mask.kind == "causal")
        return rows_first(o), rows_first(lse.squeeze(-1) if lse.dim() == 4 else lse)

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
        self._check(q, k, config, mask, q_start, kv_start)
        if mask.kind == "full" and leaves_half_tile(k.shape[0]):
            raise AttentionError(
                f"attention backend '{self.name}' has no exact backward over {k.shape[0]} keys without a mask: "
                f"64 are left over whole tiles of {_TILE}",
                f"plan with chunks of a multiple of {_TILE} tokens, or with --attention flash2",
            )
        lse = lse.t().contiguous().unsqueeze(0)
        none = torch.empty(0, dtype=torch.uint64, device=q.device)
        dq, dk, dv = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
            heads_first(do),
            heads_first(q),
            heads_first(k),
            heads_first(v),
            heads_first(o),
            lse.unsqueeze(-1) if _lse_has_column(q.device, q.dtype) else lse,
            none,
            none,
            None,
            None,
            None,
            q.shape[0],
            k.shape[0],
            0.0,
            mask.kind == "causal",
            scale=config.scale,
        )
        return rows_first(dq), rows_first(dk), rows_first(dv)

    def _check(self, q: Tensor, k: Tensor, config: AttentionConfig, mask: Mask, q_start: int, kv_start: int) -> None:
        check_call(self, q, k, config, mask, q_start, kv_start)
        check_half(self, q, 8, 256)


def leaves_half_tile(num_keys: int) -> bool:
    return num_keys % _TILE == _TILE // 2


def _cudnn_version() -> int | None:
    cudnn = torch.backends.cudnn
    found: int | None = cudnn.version() if cudnn.is_available() else None  # type: ignore[no-untyped-call]
    return found


def _forward(q: Tensor, k: Tensor, v: Tensor, scale: float, is_causal: bool) -> tuple[Tensor, Tensor]:
    o, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
        heads_first(q), heads_first(k), heads_first(v), None, True, 0.0, is_causal, False, scale=scale
    )
    return o, lse


@lru_cache
def _lse_has_column(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch has lse as [1, heads, rows, 1], which others have without the 1: backward takes its own."""
    rows = torch.zeros(_TILE, 1, 64, dtype=dtype, device=device)
    return _forward(rows, rows, rows, 1.0, False)[1].dim() == 4
