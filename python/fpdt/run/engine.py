"""The model of a plan inside DeepSpeed: Hugging Face modules under their own names, streamed by the plan's turns."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import deepspeed
import deepspeed.comm.comm as deepspeed_comm
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import groups
from torch import Tensor, nn

from fpdt.errors import FpdtError
from fpdt.measure.timing import Recorder
from fpdt.plan import Plan
from fpdt.run.loss_scale import LossScaling
from fpdt.run.op_builds import free_abandoned_builds
from fpdt.run.program import Program
from fpdt.run.rank_disk import with_folders
from fpdt.run.states_disk import read_gradients_anywhere
from fpdt.run.stream import StreamedModel
from fpdt.run.zero import undo_first_step


class ConfigError(FpdtError):
    """A ds_config that does not agree with its plan."""


class DeepSpeedEngine(Protocol):
    """What is used of deepspeed.DeepSpeedEngine."""

    def __call__(self, token: Tensor) -> Tensor: ...

    def backward(self, loss: Tensor) -> Tensor: ...

    def step(self) -> None: ...

    def get_global_grad_norm(self) -> Any: ...

    def get_lr(self) -> list[Any]: ...

    def was_step_applied(self) -> bool: ...


@dataclass(frozen=True)
class StreamedEngine:
    """A DeepSpeed engine and the program its model runs."""

    deepspeed: DeepSpeedEngine
    model: nn.Module
    program: Program
    recorder: Recorder
    device: torch.device
    loss_scale: LossScaling

    def forward(self) -> Tensor:
        """The rank's loss of the micro-step that the program began."""
        # A token that requires grad lets ZeRO's backward hooks see the end of every module's backward.
        return self.deepspeed(torch.zeros(1, device=self.device, requires_grad=True))

    def evaluate(self) -> None:
        """The forward of the sequence that the program began to evaluate."""
        with torch.no_grad():
            self.deepspeed(torch.zeros(1, device=self.device))

    def backward(self, loss: Tensor) -> None:
        """DeepSpeed's backward of the rank's loss, under the step's loss scale."""
        self.deepspeed.backward(self.loss_scale.scale_loss(loss))

    def step(self) -> None:
        """DeepSpeed's step at the end of the last micro-step, on gradients free of the loss scale."""
        self.loss_scale.unscale_gradients()
        self.deepspeed.step()


def build_engine(streamed: StreamedModel, plan: Plan, folders: Mapping[str, Path]) -> Any:
    """DeepSpeed's engine around a streamed model, whose weights are sharded already where ZeRO shards; a collective.

    The model's forward then takes a token and returns the rank's loss.
    The plan's config is used as it is but for the batch size. Every rank counts as a data-parallel one (no mpu), so
    that DeepSpeed shards over, and divides by, all of them. `folders`: the rank's on a disk, see rank_disk.
    """
    model = streamed.model
    streamed.replace_forward(model, streamed.run)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    _import_muon()
    config = with_folders(engine_config(plan), folders)
    engine, *_ = deepspeed.initialize(model=model, model_parameters=weights, config=config, dist_init_required=False)
    undo_first_step(engine.optimizer)
    read_gradients_anywhere(engine.optimizer)
    return engine


def _import_muon() -> None:
    """DeepSpeed asks of every optimizer whether it is its Muon, which has torch.compile decorate a function.

    That alone loads Inductor: 1.4 s of CPU and 40 MiB a rank (torch 2.13). No plan has Muon, so nothing is compiled.
    """
    uncompiled = mock.patch.object(torch, "compile", lambda function=None, **_: function or (lambda one: one))
    with uncompiled, contextlib.suppress(ImportError):
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")


def engine_config(plan: Plan) -> dict[str, Any]:
    """The plan's ds_config with the batch size as DeepSpeed counts it without an mpu."""
    steps = int(plan.run["gradientAccumulationSteps"])
    return {
        **plan.deepspeed,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": steps,
        "train_batch_size": plan.world_size * steps,
    }


def check_config(plan: Plan) -> None:
    """Raises ConfigError where ds_config and run disagree about dtype or ZeRO stage, or the device lacks the dtype."""
    config: Mapping[str, Any] = plan.deepspeed
    for section, dtype in (("bf16", "bfloat16"), ("fp16", "float16")):
        is_enabled = bool(config.get(section, {}).get("enabled", False))
        if is_enabled != (plan.run["dtype"] == dtype):
            raise ConfigError(
                f"the run's dtype is {plan.run['dtype']} but ds_config has {section}.enabled={str(is_enabled).lower()}",
                "plan again with the same dtype in both",
            )
    if plan.run["dtype"] == "float16" and not get_accelerator().is_fp16_supported():
        raise ConfigError(
            f"DeepSpeed does not train in fp16 on this {plan.device}", "plan with dtype bfloat16 or float32"
        )
    stage = int(config.get("zero_optimization", {}).get("stage", 0))
    if stage != plan.run["zeroStage"]:
        raise ConfigError(f"the run's ZeRO stage is {plan.run['zeroStage']}, ds_config's is {stage}", "plan again")


def start_deepspeed() -> None:
    """Gives DeepSpeed the process group that is there: it counts ranks by it when it shards a model."""
    quiet_deepspeed()
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        free_abandoned_builds()
    # No shared-memory all-reduce of its own on CPU: it would compile it at start, on every rank, with g++.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_init_required=False)
    # DeepSpeed would copy it, for a torch whose default group had no ranks to name, and NCCL connect once more.
    groups._WORLD_GROUP = dist.group.WORLD


def quiet_deepspeed() -> None:
    """Only warnings of DeepSpeed's own; torch's notes about names that DeepSpeed uses are not the user's to fix."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")


def print_communication(config: Mapping[str, Any]) -> None:
    """Prints what DeepSpeed's comms logger has counted, where a ds_config has it; of this rank, as no other is asked.

    A loop of one's own calls deepspeed.comm.log_summary.
    """
    if config.get("comms_logger", {}).get("enabled", False):
        deepspeed_comm.comms_logger.log_all()
