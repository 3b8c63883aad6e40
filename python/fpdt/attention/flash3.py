"""FlashAttention-3 and 4, where the user has their packages: torch registers them behind the ops of version 2.

torch.nn.attention's activate_flash_attention_impl does so for the whole process (torch 2.11 or later).
"""

from __future__ import annotations

import importlib.util

import torch

from fpdt.attention.aten_flash import AtenFlash
from fpdt.attention.base import AttentionError, MaskName, require_device


class InstalledFlash(AtenFlash):
    """A version of FlashAttention that a package brings; `chips` are major compute capabilities."""

    implementation: str
    module: str
    install: str
    chips: frozenset[int]

    def require(self, device: torch.device) -> None:
        require_device(self, device, "cuda")
        self._require_package()
        major, minor = torch.cuda.get_device_capability(device)
        if major not in self.chips:
            known = " or ".join(f"{chip}.x" for chip in sorted(self.chips))
            raise AttentionError(
                f"attention backend '{self.name}' runs on compute capability {known}, "
                f"{torch.cuda.get_device_name(device)} has {major}.{minor}",
                "plan with a kernel that this GPU has: --attention flash2",
            )
        if torch.nn.attention.current_flash_attention_impl() != self.implementation:
            torch.nn.attention.activate_flash_attention_impl(self.implementation)

    @classmethod
    def is_installed(cls) -> bool:
        """Whether torch can activate it and its package is here; nothing is imported but the package's parents."""
        try:
            return _activates(cls.implementation) and importlib.util.find_spec(cls.module) is not None
        except ModuleNotFoundError:
            return False

    def _require_package(self) -> None:
        if not _activates(self.implementation):
            raise AttentionError(
                f"attention backend '{self.name}' needs torch 2.11 or later, this is {torch.__version__}",
                "install a later PyTorch, or plan without it: --attention flash2",
            )
        if not self.is_installed():
            raise AttentionError(
                f"attention backend '{self.name}' needs the module {self.module}, which is not installed",
                f"install it ({self.install}), or plan without it: --attention flash2",
            )


def _activates(implementation: str) -> bool:
    known = getattr(torch.nn.attention, "list_flash_attention_impls", list)
    return implementation in known()


class Flash3Attention(InstalledFlash):
    name = "flash3"
    masks: frozenset[MaskName] = frozenset({"full", "square", "rectangle", "window"})
    implementation = "FA3"
    module = "flash_attn_interface"
    install = "the folder hopper of github.com/Dao-AILab/flash-attention"
    chips = frozenset({9})


class Flash4Attention(InstalledFlash):
    """Sliding windows of its backward differ by version and chip; they are left out."""

    name = "flash4"
    masks: frozenset[MaskName] = frozenset({"full", "square", "rectangle"})
    head_dims = (32, 128)
    implementation = "FA4"
    module = "flash_attn.cute.interface"
    install = "pip install flash-attn-4"
    chips = frozenset({9, 10})
