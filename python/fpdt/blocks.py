"""Blocks of rows: a kernel that works block by block makes no more at a time than one of them needs."""

from __future__ import annotations

from collections.abc import Iterator


def blocks(num_rows: int, row_bytes: int, block_bytes: int) -> Iterator[slice]:
    """Rows of one block after the other, at least one each. Twin of blocksOf in src/catalog/fusedKernels.ts."""
    most = max(1, block_bytes // row_bytes)
    for start in range(0, num_rows, most):
        yield slice(start, min(num_rows, start + most))
