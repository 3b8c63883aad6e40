"""Attention backends by name; a new one is a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fpdt.attention.base import AttentionBackend, AttentionError, MaskName
from fpdt.attention.cpu_flash import CpuFlashAttention
from fpdt.attention.cudnn import CudnnAttention
from fpdt.attention.flash2 import Flash2Attention
from fpdt.attention.flash3 import Flash3Attention, Flash4Attention, InstalledFlash
from fpdt.attention.reference import ReferenceAttention

BACKENDS: Mapping[str, Callable[[], AttentionBackend]] = {
    "reference": ReferenceAttention,
    "cpu_flash": CpuFlashAttention,
    "flash2": Flash2Attention,
    "cudnn": CudnnAttention,
    "flash3": Flash3Attention,
    "flash4": Flash4Attention,
}

CAPABILITIES: Mapping[str, frozenset[MaskName]] = {name: make().masks for name, make in BACKENDS.items()}
"""Masks by backend; the planner's table of kernels has the same."""


def installed_kernels() -> tuple[str, ...]:
    """Names of the kernels beside PyTorch's own whose packages are in this environment."""
    packaged: tuple[type[InstalledFlash], ...] = (Flash3Attention, Flash4Attention)
    return tuple(kind.name for kind in packaged if kind.is_installed())


def backend_named(name: str) -> AttentionBackend:
    """Raises AttentionError for a name that is not in BACKENDS."""
    if name not in BACKENDS:
        raise AttentionError(f"unknown attention backend '{name}'", f"expected one of {', '.join(BACKENDS)}")
    return BACKENDS[name]()
