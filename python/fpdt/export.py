"""`fpdt export`: the model that a run of a plan starts from, as a Hugging Face folder, in one process.

Weights are those of a folder, in the run's dtype, or those of the plan's seed; adapters are left out. A unit at a time
is in memory, beside what the file that comes next is to hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpdt.wire.calls import answer

if TYPE_CHECKING:
    from torch import nn


def export_plan(plan: str, output: str, weights: str | None) -> dict[str, Any]:
    """Writes the folder `output`; the number of weights and their bytes. Raises FpdtError."""
    from fpdt.models.plan_model import plan_model, plan_writer
    from fpdt.models.weights import check_vocabulary
    from fpdt.plan import load_plan

    loaded = load_plan(Path(plan))
    source = None if weights is None else Path(weights)
    if source is not None:
        check_vocabulary(source, int(loaded.model["vocabSize"]))
    with plan_writer(loaded, Path(output), source, with_adapters=False) as writer:

        def write(model: nn.Module, path: str) -> None:
            for name, weight in model.get_submodule(path).named_parameters(prefix=path):
                if weight.numel() > 0:  # Else it is tied to one that was written.
                    writer.add(model, name, weight.detach())
                    weight.data = weight.data.new_empty(0)

        writer.finish(plan_model(loaded, source, with_adapters=False, shard=write))
        return {"numWeights": writer.num_weights, "bytes": writer.num_bytes}


FUNCTIONS = {"export_plan": export_plan}


def invoke(name: str, arguments: str) -> str:
    """See wire.calls.answer."""
    return answer(FUNCTIONS, name, arguments)
