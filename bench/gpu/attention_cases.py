"""Attention of rows at the end of a sequence, its keys in two parts that are merged: for every kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fpdt.attention import CAUSAL, FULL, AttentionBackend, AttentionConfig, Mask, merge_partial
from gpu.seeded import seeded
from gpu.sketch import Sketches, sketch


@dataclass(frozen=True)
class Case:
    """Queries are the last `queries` of `keys` rows; keys below `split`, which all queries see, are their own part."""

    name: str
    queries: int
    keys: int
    split: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def start(self) -> int:
        return self.keys - self.queries

    @property
    def config(self) -> AttentionConfig:
        return AttentionConfig(scale=self.head_dim**-0.5)

    def parts(self) -> Iterator[tuple[slice, Mask]]:
        if self.split:
            yield slice(0, self.split), FULL
        yield slice(self.split, self.keys), CAUSAL

    def inputs(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v, do."""
        rows = {"q": self.queries, "k": self.keys, "v": self.keys, "do": self.queries}
        heads = {"q": self.heads, "k": self.kv_heads, "v": self.kv_heads, "do": self.heads}
        q, k, v, do = (
            seeded(f"{self.name}/{key}", (count, heads[key], self.head_dim), device, dtype)
            for key, count in rows.items()
        )
        return q, k, v, do

    def mask_name(self) -> str:
        """The mask of the last part, as backends call it."""
        return "square" if self.queries == self.keys - self.split else "rectangle"


def attention_cases(table: dict[str, Any]) -> list[Case]:
    return [
        Case(row["name"], row["queries"], row["keys"], row["split"], row["heads"], row["kvHeads"], row["headDim"])
        for row in table["attention"]["cases"]
    ]


def run_case(case: Case, kernel: AttentionBackend, device: torch.device, dtype: torch.dtype) -> Sketches:
    """Sketches of o, lse and the gradients; backward takes the merged o and lse, as in a plan."""
    q, k, v, do = case.inputs(device, dtype)
    wide = torch.promote_types(dtype, torch.float32)
    o = torch.zeros(q.shape, dtype=wide, device=device)
    # In memory as a plan's: heads first.
    lse = torch.full((q.shape[1], q.shape[0]), float("-inf"), dtype=wide, device=device).t()
    for part, mask in case.parts():
        merge_partial(o, lse, *kernel.forward(q, k[part], v[part], case.config, mask, case.start, part.start))
    out = o.to(dtype)
    dq = torch.zeros(q.shape, dtype=wide, device=device)
    dk, dv = (torch.zeros(k.shape, dtype=wide, device=device) for _ in range(2))
    for part, mask in case.parts():
        arguments = (do, q, k[part], v[part], out, lse, case.config, mask, case.start, part.start)
        for total, share in zip((dq, dk[part], dv[part]), kernel.backward(*arguments), strict=True):
            total += share
    return {name: sketch(name, found) for name, found in {"o": o, "lse": lse, "dq": dq, "dk": dk, "dv": dv}.items()}
