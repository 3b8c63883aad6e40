"""`fpdt export`: the model that a run of a plan starts from, as a Hugging Face folder, in one process.

Weights are those of a folder, in the run's dtype, or those of the plan's seed. A layer at a time is in memory.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpdt.wire.calls import answer

if TYPE_CHECKING:
    from torch import nn


def export_plan(plan: str, output: str, weights: str | None) -> dict[str, Any]:
    """Writes the folder `output`; the number of weights and their bytes. Raises FpdtError."""
    from fpdt.models.build import DTYPES, build_model
    from fpdt.models.export import FolderWriter, exported_config
    from fpdt.models.weights import WeightFolder, check_vocabulary
    from fpdt.plan import load_plan

    loaded = load_plan(Path(plan))
    config, dtype = loaded.model["hfConfig"], str(loaded.run["dtype"])
    source = None if weights is None else Path(weights)
    if source is not None:
        check_vocabulary(source, int(loaded.model["vocabSize"]))
    size = loaded.parameters.num_model_parameters * DTYPES[dtype].itemsize
    with (
        FolderWriter(Path(output), size) as writer,
        nullcontext() if source is None else WeightFolder(source) as folder,
    ):

        def write(model: nn.Module, path: str) -> None:
            for name, weight in model.get_submodule(path).named_parameters(prefix=path):
                if weight.numel() > 0:  # Else it is tied to one that was written.
                    writer.add(model, name, weight.detach())
                    weight.data = weight.data.new_empty(0)

        model = build_model(
            config, int(loaded.run["seed"]), DTYPES[dtype], layers=loaded.code.layers, folder=folder, shard=write
        )
        writer.finish(exported_config(config, type(model).__name__, dtype), source)
        return {"numWeights": writer.num_weights, "bytes": writer.num_bytes}


FUNCTIONS = {"export_plan": export_plan}


def invoke(name: str, arguments: str) -> str:
    """See wire.calls.answer."""
    return answer(FUNCTIONS, name, arguments)
