"""What a plan asks of its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fpdt.plan import Plan


@dataclass(frozen=True)
class Demand:
    """`packs`: the plan was made for documents that share a sequence. `seed` of the order where no other is given."""

    vocab_size: int
    seq_len: int
    packs: bool
    seed: int


def plan_demand(plan: Plan) -> Demand:
    run = plan.run
    return Demand(int(plan.model["vocabSize"]), int(run["seqLen"]), bool(run.get("packing", False)), int(run["seed"]))
