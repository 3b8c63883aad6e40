"""Attention backends by name; a new one is a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fpdt.attention.base import AttentionBackend, AttentionError
from fpdt.attention.cpu_flash import CpuFlashAttention
from fpdt.attention.cuda import CudaFlashAttention
from fpdt.attention.reference import ReferenceAttention

BACKENDS: Mapping[str, Callable[[], AttentionBackend]] = {
    "reference": ReferenceAttention,
    "cpu_flash": CpuFlashAttention,
    "cuda": CudaFlashAttention,
}

_DEFAULTS = {"cpu": "cpu_flash", "cuda": "cuda"}


def backend_named(name: str) -> AttentionBackend:
    """Raises AttentionError for a name that is not in BACKENDS."""
    if name not in BACKENDS:
        raise AttentionError(f"unknown attention backend '{name}', expected one of {', '.join(BACKENDS)}")
    return BACKENDS[name]()


def default_backend(device_type: str) -> AttentionBackend:
    """The backend for a device type, 'cpu' or 'cuda'."""
    if device_type not in _DEFAULTS:
        raise AttentionError(f"no attention backend for device '{device_type}', expected {' or '.join(_DEFAULTS)}")
    return backend_named(_DEFAULTS[device_type])
