"""Ops of a section that the documents of a micro-step may leave nothing to do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fpdt.attention import Documents
from fpdt.plan import Section
from fpdt.plan.sections import Array


@dataclass(frozen=True, slots=True)
class HideableOps:
    """Ops whose keys all come before their queries, with the position of the first query and of the end of the keys."""

    ops: Array
    first_queries: Array
    key_ends: Array

    def hidden(self, documents: Documents) -> list[int]:
        """Those none of whose queries share a document with one of their keys."""
        found: list[int] = self.ops[documents.hides(self.first_queries, self.key_ends)].tolist()
        return found


def hideable_ops(section: Section) -> HideableOps | None:
    """None where there are none."""
    rows, columns = section.rows, section.columns
    first_queries, key_ends = columns.tokens[rows, 0], columns.kv[rows, 1]
    ops = np.flatnonzero((key_ends >= 0) & (key_ends <= first_queries))
    return HideableOps(ops, first_queries[ops], key_ends[ops]) if len(ops) else None
