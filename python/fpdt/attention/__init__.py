"""Attention over one range of query rows and one of key/value rows, behind one interface.

Results are partial: `lse` (natural log) lets the caller merge them, and backward takes the merged o and lse.
"""

from fpdt.attention.base import CAUSAL, FULL, AttentionBackend, AttentionConfig, AttentionError, Mask
from fpdt.attention.documents import Documents
from fpdt.attention.merge import merge_by_lerp, merge_partial
from fpdt.attention.pieces import Piece
from fpdt.attention.register import BACKENDS, CAPABILITIES, backend_named, installed_kernels

__all__ = [
    "BACKENDS",
    "CAPABILITIES",
    "CAUSAL",
    "FULL",
    "AttentionBackend",
    "AttentionConfig",
    "AttentionError",
    "Documents",
    "Mask",
    "Piece",
    "backend_named",
    "installed_kernels",
    "merge_by_lerp",
    "merge_partial",
]
