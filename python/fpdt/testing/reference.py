"""The reference: the untouched Hugging Face model on full sequences, in one process, without DeepSpeed.

    python -m fpdt.testing.reference --plan plan.json --data FILE --steps N --dtype float64 [--weights DIR]
        [--dump-grads DIR] [--json]

Same initial weights, tokens, loss and optimizer as the plan's run: every replica's and micro-step's tokens are averaged
by valid target tokens. The weights are those of the run in the run's dtype, then cast to `--dtype`. In float16 the loss
is scaled, and steps are skipped, by the ds_config's fp16 section.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fpdt.data.tokens import IGNORED_LABEL
from fpdt.data.whole import WholeSequences, plan_sequences
from fpdt.models.build import DTYPES, cast_weights
from fpdt.models.plan_model import plan_model
from fpdt.plan import Plan, load_plan
from fpdt.run.gradients import write_gradients
from fpdt.testing.lion import Lion
from fpdt.testing.packed import Document, PackedSequences
from fpdt.testing.reference_scale import make_reference_scale

DEFAULT_CLIPPING = 1.0
"""DeepSpeed clips gradients at this norm when the config does not say otherwise."""


def run_reference(
    plan: Path | Plan,
    data: Path,
    steps: int,
    dtype: str = "float64",
    dump_grads: Path | None = None,
    weights: Path | None = None,
    documents: int | None = None,
) -> list[float]:
    """The mean token loss of each step. Dumps gradients before clipping as the worker does, in fp32 or fp64.

    `documents`: the seed of packed documents, see packed.py; None: each sequence is one.
    """
    loaded = plan if isinstance(plan, Plan) else load_plan(plan)
    trainer = ReferenceTrainer(loaded, data, DTYPES[dtype], weights, documents)
    return [trainer.step(step, dump_grads) for step in range(steps)]


class ReferenceTrainer:
    """Holds the model, fp32 (or fp64) master weights and the optimizer of a reference run.

    `weights`: the Hugging Face folder that the run starts from; None: the plan's seed.
    """

    def __init__(
        self,
        plan: Plan,
        data: Path,
        dtype: torch.dtype,
        weights: Path | None = None,
        documents: int | None = None,
    ) -> None:
        self._sequences = plan_sequences(plan, data)
        self._packed = None if documents is None else PackedSequences(self._sequences, documents)
        self.model = plan_model(plan, weights, attention="sdpa", with_buffers=True)
        cast_weights(self.model, dtype)
        self._weights = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        master = torch.float64 if dtype == torch.float64 else torch.float32
        self._masters = {name: nn.Parameter(weight.detach().to(master)) for name, weight in self._weights.items()}
        self._optimizer = make_optimizer(plan.deepspeed, list(self._masters.values()))
        self._scheduler = make_scheduler(plan.deepspeed, self._optimizer)
        self.scale = make_reference_scale(plan, dtype)
        self._clipping = float(plan.deepspeed.get("gradient_clipping", DEFAULT_CLIPPING))

    def step(self, step: int, dump_grads: Path | None) -> float:
        """One optimizer step; the mean loss of its tokens."""
        loss = self._accumulate(step)
        if dump_grads is not None:
            gradients = {name: _grad_of(master) for name, master in self._masters.items()}
            write_gradients(gradients, dump_grads, step)
        if self.scale.update(self.is_finite()):
            self._update()
        return loss

    def is_finite(self) -> bool:
        """Whether every gradient of the last step is."""
        return all(bool(_grad_of(master).isfinite().all()) for master in self._masters.values())

    def _update(self) -> None:
        if self._clipping > 0:
            torch.nn.utils.clip_grad_norm_(list(self._masters.values()), self._clipping)
        self._optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        for name, master in self._masters.items():
            self._weights[name].data.copy_(master.detach())

    def _accumulate(self, step: int) -> float:
        """Sums gradients of all sequences of the step into the masters'; the mean loss."""
        for master in self._masters.values():
            master.grad = torch.zeros_like(master)
        scale = self.scale.current
        losses, num_valid = (
            self._whole_losses(step) if self._packed is None else self._document_losses(step, self._packed)
        )
        total = 0.0
        for loss_of in losses:
            self.model.zero_grad()
            loss_sum = loss_of()
            (loss_sum * (scale / num_valid)).backward()  # type: ignore[no-untyped-call]
            total += float(loss_sum.detach())
            for name, weight in self._weights.items():
                total_gradient = _grad_of(self._masters[name])
                total_gradient.add_(_grad_of(weight).to(total_gradient.dtype).div_(scale))
        return total / num_valid

    def _whole_losses(self, step: int) -> tuple[Sequence[Callable[[], Tensor]], float]:
        """Of each sequence what computes its loss; and what their sum is divided by."""
        sequences = self._sequences
        losses = [partial(token_loss_sum, self.model, tokens) for tokens in slices(sequences, step)]
        return losses, sequences.seq_len * sequences.data_parallel_size * sequences.accumulation_steps

    def _document_losses(self, step: int, packed: PackedSequences) -> tuple[Sequence[Callable[[], Tensor]], float]:
        """The same of each document, by the weights of its tokens."""
        places = product(range(self._sequences.accumulation_steps), range(self._sequences.data_parallel_size))
        documents = [one for place in places for one in packed.documents(step, *place)]
        weight_sum = sum(float(one.weights[one.labels != IGNORED_LABEL].sum()) for one in documents)
        return [partial(document_loss_sum, self.model, one) for one in documents], weight_sum


def slices(sequences: WholeSequences, step: int) -> Iterator[Tensor]:
    """Every sequence of an optimizer step, of all replicas and micro-steps."""
    for micro_step in range(sequences.accumulation_steps):
        for data_rank in range(sequences.data_parallel_size):
            yield sequences.whole(step, micro_step, data_rank)


def token_loss_sum(model: nn.Module, tokens: Tensor) -> Tensor:
    """Sum of the cross entropies of tokens 1.. given those before; fp32, or fp64 for an fp64 model."""
    logits: Tensor = model(input_ids=tokens[None, :-1]).logits[0]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(logits, tokens[1:], reduction="sum")


def document_loss_sum(model: nn.Module, document: Document) -> Tensor:
    """Weighted sum of the cross entropies of a document's labels, nothing else being in sight; as token_loss_sum."""
    logits: Tensor = model(input_ids=document.token_ids[None]).logits[0]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = functional.cross_entropy(logits, document.labels, reduction="none")
    return (losses * document.weights.to(losses.dtype)).sum()


def make_optimizer(config: Mapping[str, Any], weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    """What DeepSpeed makes of the config's optimizer, by torch but for Lion. Raises ValueError for others."""
    section = config.get("optimizer", {})
    name, options = str(section.get("type", "")).lower(), dict(section.get("params", {}))
    for only_deepspeed in ("torch_adam", "fp32_optimizer_states"):
        options.pop(only_deepspeed, None)
    if name == "lion":
        return Lion(weights, **options)
    if name not in ("adam", "adamw"):
        found = torch.optim.Adagrad if name == "adagrad" else getattr(torch.optim, str(section.get("type")), None)
        if found is None:
            raise ValueError(f"the reference has no optimizer '{section.get('type')}'; plan with one of torch's")
        return cast(type[torch.optim.Optimizer], found)(weights, **options)
    decoupled = bool(options.pop("adam_w_mode", True)) or name == "adamw"
    return (torch.optim.AdamW if decoupled else torch.optim.Adam)(weights, **options)


def make_scheduler(config: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> Any:
    """The config's learning rate schedule, DeepSpeed's own class or torch's; None when it has none."""
    section = config.get("scheduler")
    if section is None:
        return None
    from deepspeed.runtime import lr_schedules

    name = section["type"]
    found = getattr(lr_schedules if name in lr_schedules.VALID_LR_SCHEDULES else torch.optim.lr_scheduler, name)
    return found(optimizer, **section.get("params", {}))


def _grad_of(weight: Tensor) -> Tensor:
    if weight.grad is None:
        raise RuntimeError("a trainable weight got no gradient")
    return weight.grad


def main() -> None:
    parser = argparse.ArgumentParser(prog="fpdt.testing.reference", description="Train a plan's model unsharded.")
    parser.add_argument("--plan", type=Path, required=True, help="plan.json")
    parser.add_argument("--data", type=Path, required=True, help="token file")
    parser.add_argument("--weights", type=Path, help="Hugging Face folder to start from; default: the plan's seed")
    parser.add_argument("--steps", type=int, default=1, help="optimizer steps")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float64", help="dtype of weights and activations")
    parser.add_argument("--dump-grads", type=Path, help="directory for each step's gradients before clipping")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a line per step")
    args = parser.parse_args()
    losses = run_reference(args.plan, args.data, args.steps, args.dtype, args.dump_grads, args.weights)
    if args.json:
        print(json.dumps({"dtype": args.dtype, "losses": losses}))
    else:
        for step, loss in enumerate(losses):
            print(f"step {step}  loss {loss:.10f}")


if __name__ == "__main__":
    main()
