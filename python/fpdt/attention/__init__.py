"""Attention over one pair of query rows and key/value rows, behind one interface.

Results are partial: `lse` (natural log) lets the caller merge them, and backward takes the merged o and lse.
"""

from fpdt.attention.base import AttentionBackend, AttentionConfig, AttentionError
from fpdt.attention.merge import merge_partial
from fpdt.attention.register import BACKENDS, backend_named, default_backend

__all__ = [
    "BACKENDS",
    "AttentionBackend",
    "AttentionConfig",
    "AttentionError",
    "backend_named",
    "default_backend",
    "merge_partial",
]
