"""The peer of `npm run bench:training`: a plain Hugging Face model in DeepSpeed's engine, on every rank a replica.

    python bench/training/peer.py --plan plan.json --config ds_config.json --data FILE --eval-data FILE --steps N

The plan says model, seed, dtype and which sequences a replica takes; nothing of its program runs. Attention sees all
rows of a sequence at once, with a mask between documents. Run by torchrun; rank 0 prints one line of JSON: the loss of
each step, the mean over the targets of all replicas, and that on the held-out data in the end.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from fpdt.data.batch import Batch
from fpdt.data.batches import open_batches
from fpdt.data.options import DataOptions
from fpdt.data.tokens import IGNORED_LABEL
from fpdt.models.plan_model import plan_model
from fpdt.plan import load_plan
from fpdt.run.evaluation import open_held_out


def main() -> None:
    options = _options()
    plan = load_plan(options.plan)
    deepspeed.init_distributed(dist_backend="gloo")
    model = plan_model(plan, None, attention="sdpa", with_buffers=True)
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=list(model.parameters()), config=json.loads(options.config.read_text())
    )
    rank = dist.get_rank()
    batches = open_batches(plan, DataOptions(options.data), rank)
    losses = [_train(engine, batches.read(step, 0)) for step in range(options.steps)]
    batches.close()
    run = {"data": str(options.data), "evaluation": {"data": str(options.eval_data), "sequences": None}}
    held_out = open_held_out(plan, run, rank)
    assert held_out is not None
    held_out_loss = _evaluate(engine, lambda number: held_out.batches.read(number, 0), held_out.num_rounds)
    held_out.close()
    if rank == 0:
        print(json.dumps({"losses": losses, "heldOutLoss": held_out_loss}), flush=True)
    engine.destroy()
    dist.destroy_process_group()


def _train(engine: Any, batch: Batch) -> float:
    """One optimizer step. DeepSpeed takes the mean of the replicas' gradients, so each gives its share of the loss."""
    loss_sum = _loss_sum(engine, batch)
    total, num_targets = _over_replicas(loss_sum, batch.num_valid)
    engine.backward(loss_sum * (dist.get_world_size() / num_targets))
    engine.step()
    return total / num_targets


def _evaluate(engine: Any, read: Callable[[int], Batch], num_rounds: int) -> float:
    engine.eval()
    total, num_targets = 0.0, 0.0
    with torch.no_grad():
        for number in range(num_rounds):
            batch = read(number)
            sums = _over_replicas(_loss_sum(engine, batch), batch.num_valid)
            total, num_targets = total + sums[0], num_targets + sums[1]
    return total / num_targets


def _loss_sum(engine: Any, batch: Batch) -> Tensor:
    logits = engine(
        input_ids=batch.token_ids[None],
        position_ids=batch.positions[None],
        attention_mask=_mask(batch),
        use_cache=False,
    ).logits[0]
    return functional.cross_entropy(logits.float(), batch.labels, ignore_index=IGNORED_LABEL, reduction="sum")


def _mask(batch: Batch) -> Tensor:
    """bool [1, 1, rows, rows]: those before a row in its own document, and itself."""
    starts = torch.zeros(len(batch.token_ids), dtype=torch.int64)
    starts[list(batch.document_starts)] = 1
    document = starts.cumsum(0)
    return (document[:, None] == document[None, :]).tril()[None, None]


def _over_replicas(loss_sum: Tensor, num_targets: int) -> tuple[float, float]:
    sums = torch.stack([loss_sum.detach().double(), torch.tensor(num_targets, dtype=torch.float64)])
    dist.all_reduce(sums)
    total, count = sums.tolist()
    return total, count


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("plan", "config", "data", "eval-data"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
