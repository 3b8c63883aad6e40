"""FlashAttention-2, as PyTorch ships it for CUDA."""

from __future__ import annotations

import torch
from torch import Tensor

from fpdt.attention.aten_flash import AtenFlash, Call
from fpdt.attention.base import AttentionConfig, AttentionError, Mask, MaskName, require_device


class Flash2Attention(AtenFlash):
    """Left and right of Sk or more mean no limit too, except that with a limit on the left the right becomes Sk.

    So torch's flash_attn/flash_api.cpp, set_params_fprop.
    """

    name = "flash2"
    masks: frozenset[MaskName] = frozenset({"full", "square", "rectangle", "window"})

    def require(self, device: torch.device) -> None:
        require_device(self, device, "cuda")
        self._give_back_ops()
        if not torch.backends.cuda.is_flash_attention_available():
            raise AttentionError(
                f"attention backend '{self.name}' is not in this build of torch {torch.__version__}",
                "install a PyTorch wheel for CUDA, or plan without it: --attention reference",
            )

    def _give_back_ops(self) -> None:
        """Another version may stand behind the ops: the environment can ask torch for one, so does a self-test."""
        current = getattr(torch.nn.attention, "current_flash_attention_impl", lambda: None)()
        if current is None:
            return
        restore = getattr(torch.nn.attention, "restore_flash_attention_impl", None)
        if restore is None:
            raise AttentionError(
                f"{current} stands behind torch's ops of FlashAttention, torch {torch.__version__} cannot take it back",
                "plan for it, install a later PyTorch, or do not activate it",
            )
        restore(_raise_warn=False)

    def _call(self, q: Tensor, k: Tensor, config: AttentionConfig, mask: Mask, q_start: int, kv_start: int) -> Call:
        call = super()._call(q, k, config, mask, q_start, kv_start)
        num_keys, num_rows = k.shape[0], call.end - call.start
        if call.right is not None and call.right >= num_keys and num_rows > num_keys + 1:
            first = q_start + call.start
            raise AttentionError(
                f"attention backend '{self.name}' cannot mask {num_keys} keys from {kv_start} on for queries "
                f"[{first}, {first + num_rows}) in one call: more keys than queries are needed",
                "plan with kernels 'reference', or let keys come in tiles no shorter than a chunk",
            )
        return call
