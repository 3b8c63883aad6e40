"""A Hugging Face model, in somebody else's training loop, whose loss is computed by a plan."""

from __future__ import annotations

import inspect
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from fpdt.devices import open_files
from fpdt.errors import FpdtError
from fpdt.loop.call import read_call, refuse_training_without_labels
from fpdt.loop.engines import check_engine, engine_around
from fpdt.loop.feed import feed
from fpdt.loop.micro_steps import MicroSteps
from fpdt.loop.same_sample import agree
from fpdt.plan import Plan, load_plan
from fpdt.run.disk_needs import sections_on_disk
from fpdt.run.engine import ConfigError, check_config
from fpdt.run.kernels import check_plan_kernels, plan_kernels
from fpdt.run.ranks import RankError
from fpdt.run.states_disk import read_gradients_anywhere
from fpdt.run.stream import Forward
from fpdt.run.stream import stream as replace_forwards
from fpdt.run.weights_disk import take_over


class StreamError(FpdtError):
    """A model that cannot be streamed, or not any more."""


def stream(
    model: nn.Module,
    plan: Plan | str | Path,
    group: dist.ProcessGroup | None = None,
    *,
    disk_folder: str | Path | None = None,
) -> Streamed:
    """Has the model's forward run a plan where it is given labels; to be called before `deepspeed.initialize`.

    `model`: the plan's, a causal language model of Hugging Face or a PeftModel of one; its weights may be sharded by
    ZeRO-3 already. `group`: the ranks that share this rank's sequence, in the plan's order; None: the default group
    where it has these ranks alone, else one that is made of it at the first forward. `disk_folder`: on a fast local
    disk, for plans with a file pool.

    With `labels` every rank of a sequence is given the same whole sample [1, seqLen] and gets the same loss: Hugging
    Face's, the mean over the sample's targets or its sum over `num_items_in_batch`. Whatever gradient the loss then
    gets, weight gradients are such that DeepSpeed's mean over all ranks is exact. Under `torch.no_grad()` nothing of
    training changes. Without labels, where no gradient is wanted, forwards are Hugging Face's own.

    Raises ParameterError for a model that is not the plan's, ConfigError after `deepspeed.initialize`, FpdtError for
    what this worker or machine cannot run. What depends on the other ranks is looked at in the first forward.
    """
    return Streamed(model, plan if isinstance(plan, Plan) else load_plan(plan), group, disk_folder)


class Streamed:
    """A streamed model, until `unstream`."""

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        group: dist.ProcessGroup | None = None,
        disk_folder: str | Path | None = None,
    ) -> None:
        base = _base_model(model)
        _check(base, plan)
        self.plan = plan
        self._group, self._device = group, _device(plan)
        kernels = plan_kernels(plan)
        check_plan_kernels(plan, kernels, self._device)
        self._own, self._signature = base.forward, inspect.signature(base.forward)
        with ExitStack() as opened:
            self._files = open_files(plan.header.pools, None if disk_folder is None else Path(disk_folder))
            for file in self._files.values():
                opened.callback(file.close)
            self._streamed = replace_forwards(base, plan, kernels, self._device)
            self._streamed.replace_forward(base, self._forward)
            self._exit = opened.pop_all()
        self._micro_steps: MicroSteps | None = None
        self._is_over = False
        self._reads_as_planned = "offload_param" not in sections_on_disk(plan.deepspeed)

    @property
    def model(self) -> nn.Module:
        """Whose forward is replaced; of a PeftModel the model inside."""
        return self._streamed.model

    def feed(self, trainer: Any) -> None:
        """Has the loaders of a `transformers.Trainer` give all ranks of a sequence the same sample; see feed.py."""
        feed(trainer, self.plan)

    def unstream(self) -> None:
        """Gives the model its own forwards back, and the arenas to the system. A second time it does nothing."""
        if self._is_over:
            return
        self._is_over = True
        if engine_around(self.model) is None:
            self._streamed.unmark()
        self._streamed.undo()
        self._micro_steps = None
        self._exit.close()

    def _forward(self, *args: Any, **keywords: Any) -> Any:
        """What the model's forward does now."""
        # DeepSpeed may put weights on a disk as late as in its initialize.
        self._reads_as_planned = self._reads_as_planned or take_over(self.model, self._device)
        given = _named(self._signature, args, keywords)
        if given.get("labels") is None:
            refuse_training_without_labels(self.model)
            return self._own(*args, **keywords)
        micro_steps = self._micro_steps or self._open()
        sample = agree(lambda: read_call(given, self.plan, self._signature), micro_steps.group, self._device)
        return CausalLMOutputWithPast(loss=micro_steps.run(sample))

    def _open(self) -> MicroSteps:
        """Arenas come last: what DeepSpeed needs for a moment while it makes an engine is free again by now."""
        engine = engine_around(self.model)
        if engine is None:
            raise ConfigError(
                "a streamed model was given labels, and there is no DeepSpeed engine around it",
                "call deepspeed.initialize(model=model, ...); with accelerate or the Trainer use DeepSpeed "
                "(ACCELERATE_USE_DEEPSPEED=true, TrainingArguments(deepspeed=...)) and no cpu=True",
            )
        check_engine(engine, self.model, self.plan)
        read_gradients_anywhere(engine.optimizer)
        self._micro_steps = MicroSteps(self.plan, self._streamed, self._device, self._group, self._files, self._exit)
        return self._micro_steps


def _named(signature: inspect.Signature, args: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name, whichever way they were given."""
    named = dict[str, Any]()
    for name, value in signature.bind(*args, **keywords).arguments.items():
        is_rest = signature.parameters[name].kind == inspect.Parameter.VAR_KEYWORD
        named.update(value if is_rest else {name: value})
    return named


def _base_model(model: Any) -> nn.Module:
    base: nn.Module = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base


def _check(model: nn.Module, plan: Plan) -> None:
    if isinstance(model.__dict__.get("forward"), Forward):
        raise StreamError("the model is streamed already", "call unstream() on what the first stream() returned")
    if engine_around(model) is not None:
        raise ConfigError(
            "stream() came after deepspeed.initialize, which has put its hooks into every layer by now",
            "call fpdt.stream(model, plan) first",
        )
    if plan.packing:
        raise StreamError("the plan is for packed documents, and a loop gives one sample", "plan without --packing")
    check_config(plan)


def _device(plan: Plan) -> torch.device:
    """The one that launchers have every rank use; which is current before there is a process group."""
    if plan.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RankError("the plan is for cuda, but PyTorch finds no CUDA device", "plan for the device cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
