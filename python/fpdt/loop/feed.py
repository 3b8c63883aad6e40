"""Loaders of a `transformers.Trainer` that give all ranks of a sequence the same sample.

The Trainer's own, made by accelerate, give every rank another one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fpdt.errors import DataError
from fpdt.loop.sampler import SequenceGroupLoader, data_loader
from fpdt.plan import Plan

logger = logging.getLogger(__name__)
SHUFFLES = {"random": True, "sequential": False}
"""By TrainingArguments.train_sampling_strategy."""
KEPT_OPTIONS = (
    *("collate_fn", "num_workers", "pin_memory", "worker_init_fn", "persistent_workers", "prefetch_factor"),
    "multiprocessing_context",
)


def feed(trainer: Any, plan: Plan) -> None:
    """Replaces the methods of this trainer that make loaders; datasets, collators and workers stay what they were.

    Samples are shuffled by the trainer's `data_seed`, or `seed`, and evaluated in their order. Raises DataError for a
    batch size above 1 and for a sampling strategy that looks at lengths.
    """
    args = trainer.args
    if args.train_sampling_strategy not in SHUFFLES:
        raise DataError(
            f"train_sampling_strategy is '{args.train_sampling_strategy}', and all samples of a plan have one length",
            f"use one of {', '.join(SHUFFLES)}",
        )
    seed = args.seed if args.data_seed is None else args.data_seed
    train = {"shuffle": SHUFFLES[args.train_sampling_strategy], "seed": seed}
    _replace(trainer, "get_train_dataloader", "per_device_train_batch_size", plan, train)
    for name in ("get_eval_dataloader", "get_test_dataloader"):
        _replace(trainer, name, "per_device_eval_batch_size", plan, {"shuffle": False})


def _replace(trainer: Any, method: str, batch_size: str, plan: Plan, options: dict[str, Any]) -> None:
    own: Callable[..., Any] = getattr(trainer, method)

    def fed(*args: Any, **keywords: Any) -> SequenceGroupLoader:
        if (found := getattr(trainer.args, batch_size)) != 1:
            raise DataError(
                f"{batch_size} is {found}; a streamed forward takes one sample",
                f"use {batch_size}=1 and as many more gradient_accumulation_steps",
            )
        made = own(*args, **keywords)
        loader = data_loader(made.dataset, plan, **options, **{name: getattr(made, name) for name in KEPT_OPTIONS})
        if (num_left_out := loader.group_sampler.num_left_out) and not options["shuffle"]:
            logger.warning("%d samples do not fill a round of all replicas and are left out", num_left_out)
        return loader

    setattr(trainer, method, fed)
