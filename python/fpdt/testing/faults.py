"""Faults on demand, for tests only, from the environment variable FPDT_FAULT.

    leak:BYTES            keeps that many bytes at every forward of a decoder layer
    sleep:KIND:SECONDS    sleeps in the handler of an op kind
    kill:RANK:STEP        SIGKILLs the rank when it starts the step
    raise:RANK:STEP       raises InjectedFaultError there instead
    hang:RANK:STEP        does nothing any more there instead
    scale:FACTOR          multiplies the scores of PyTorch's flash attention for CPUs, forward
    nan:loss:RANK:STEP    makes the loss of one row, or one element of a gradient, of a rank in a step NaN;
                          or nan:gradient:RANK:STEP
    full:BYTES            has a full disk where a shard of a checkpoint would be longer than so many bytes
    fp16                  lets DeepSpeed train in fp16 on a CPU that has no arithmetic for it
    plain-disk            has Python read and write DeepSpeed's files, where its op for that is not compiled

Several are told apart by commas. `install` plants them from outside, in the tables and classes of the worker; nothing
of these knows of faults.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle

VARIABLE = "FPDT_FAULT"
LAYER_SUFFIX = "DecoderLayer"
"""What transformers' classes of decoder layers end with."""

SPOILED_ROW = 5

StopWay = Literal["kill", "raise", "hang"]


class InjectedFaultError(RuntimeError):
    """What a test asked for with `raise:RANK:STEP`."""


@dataclass(frozen=True)
class Leak:
    num_bytes: int


@dataclass(frozen=True)
class Sleep:
    kind: str
    seconds: float


@dataclass(frozen=True)
class Stop:
    """Ends, fails or stops the rank at the start of the step."""

    way: StopWay
    rank: int
    step: int


@dataclass(frozen=True)
class Scale:
    factor: float


@dataclass(frozen=True)
class Spoil:
    what: Literal["loss", "gradient"]
    rank: int
    step: int


@dataclass(frozen=True)
class Full:
    num_bytes: int


@dataclass(frozen=True)
class Half:
    """Slow and exact to fp16's rounding, as oneDNN and gloo compute it."""


@dataclass(frozen=True)
class PlainDisk:
    """Transfers are done when they are waited for."""


Fault = Leak | Sleep | Stop | Scale | Spoil | Full | Half | PlainDisk


def install() -> None:
    """Plants the faults that FPDT_FAULT asks for; nothing where it is empty. To be called once in a process, before
    its session is made.

    Raises ValueError for a fault that it does not know, or an op kind without a handler.
    """
    for text in os.environ.get(VARIABLE, "").split(","):
        fault = parse_fault(text)
        if fault is not None:
            _plant(fault)


def _plant(fault: Fault) -> None:
    from fpdt.ops import HANDLERS
    from fpdt.run.session import PlanSession

    match fault:
        case Leak():
            leak_in_layers(fault)
        case Sleep():
            slow_down(HANDLERS, fault)
        case Stop():
            stop_before(PlanSession, fault)
        case Scale():
            scale_scores(fault)
        case Spoil():
            spoil(PlanSession, fault)
        case Full():
            fill_disk(fault)
        case Half():
            allow_fp16()
        case PlainDisk():
            use_plain_disk()


def parse_fault(text: str) -> Fault | None:
    """The fault that the variable's value asks for; None for an empty one. Raises ValueError naming the forms."""
    if not text:
        return None
    try:
        match text.split(":"):
            case ["leak", num_bytes]:
                return Leak(int(num_bytes))
            case ["sleep", kind, seconds]:
                return Sleep(kind, float(seconds))
            case [("kill" | "raise" | "hang") as way, rank, step]:
                return Stop(way, int(rank), int(step))
            case ["scale", factor]:
                return Scale(float(factor))
            case ["nan", ("loss" | "gradient") as what, rank, step]:
                return Spoil(what, int(rank), int(step))
            case ["full", num_bytes]:
                return Full(int(num_bytes))
            case ["fp16"]:
                return Half()
            case ["plain-disk"]:
                return PlainDisk()
    except ValueError as error:
        raise ValueError(_usage(text)) from error
    raise ValueError(_usage(text))


def _usage(text: str) -> str:
    forms = "leak:BYTES, sleep:KIND:SECONDS, kill:RANK:STEP, raise:RANK:STEP, hang:RANK:STEP, scale:FACTOR, full:BYTES"
    return f"{VARIABLE}={text}: expected {forms}, nan:loss:RANK:STEP, nan:gradient:RANK:STEP, fp16 or plain-disk"


def slow_down(handlers: MutableMapping[str, Callable[..., None]], fault: Sleep) -> None:
    """Makes the handler of the kind sleep first. Raises ValueError for a kind without a handler."""
    if fault.kind not in handlers:
        kinds = ", ".join(sorted(handlers))
        raise ValueError(f"{VARIABLE}: there is no handler of kind {fault.kind}; kinds: {kinds}")
    handler = handlers[fault.kind]

    @functools.wraps(handler)
    def slow(*args: Any) -> None:
        time.sleep(fault.seconds)
        handler(*args)

    handlers[fault.kind] = slow


def stop_before(session: type[Any], fault: Stop) -> None:
    """Makes `run_step` of the session's class stop on the rank and step of the fault; RANK says which rank this is."""
    run_step = session.run_step

    @functools.wraps(run_step)
    def run_or_stop(self: Any, step: int) -> Any:
        if (int(os.environ.get("RANK", "0")), step) == (fault.rank, fault.step):
            _stop(fault)
        return run_step(self, step)

    session.run_step = run_or_stop


def _stop(fault: Stop) -> None:
    if fault.way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.way == "hang":
        threading.Event().wait()
    raise InjectedFaultError(f"{VARIABLE}: rank {fault.rank} was asked to fail in step {fault.step}")


def scale_scores(fault: Scale) -> None:
    """Makes the kernel `cpu_flash` wrong, as one of another build may be."""
    from dataclasses import replace

    from fpdt.attention import AttentionConfig
    from fpdt.attention.cpu_flash import CpuFlashAttention

    forward = CpuFlashAttention.forward

    def scaled(self: Any, q: Any, k: Any, v: Any, config: AttentionConfig, *place: Any, **options: Any) -> Any:
        return forward(self, q, k, v, replace(config, scale=fault.factor * config.scale), *place, **options)

    CpuFlashAttention.forward = scaled  # type: ignore[method-assign]


def spoil(session: type[Any], fault: Spoil) -> None:
    """Once: in the first tokens whose loss is formed, or the first gradients that are handed over, of the step."""
    from fpdt.ops import loss, loss_in_place
    from fpdt.run.program import EmittedGradients

    run_step, cross_entropy, emit = session.run_step, loss.cross_entropy, EmittedGradients.__call__
    in_place = loss_in_place.cross_entropy_in_place
    armed: list[str] = []

    def run_armed(self: Any, step: int) -> Any:
        if (int(os.environ.get("RANK", "0")), step) == (fault.rank, fault.step):
            armed.append(fault.what)
        return run_step(self, step)

    def spoiled_losses(*args: Any) -> Any:
        losses, gradients = cross_entropy(*args)
        if "loss" in armed:
            armed.clear()
            losses[SPOILED_ROW] = gradients[SPOILED_ROW] = float("nan")
        return losses, gradients

    def spoiled_in_place(logits: Any, *args: Any) -> Any:
        losses = in_place(logits, *args)
        if "loss" in armed:
            armed.clear()
            losses[SPOILED_ROW] = logits[SPOILED_ROW] = float("nan")
        return losses

    def spoiled_gradients(self: Any, region: Any) -> None:
        if "gradient" in armed:
            armed.clear()
            region[0] = float("nan")
        emit(self, region)

    session.run_step = run_armed
    loss.cross_entropy = spoiled_losses  # type: ignore[assignment]
    loss_in_place.cross_entropy_in_place = spoiled_in_place  # type: ignore[assignment]
    EmittedGradients.__call__ = spoiled_gradients  # type: ignore[method-assign]


def fill_disk(fault: Full) -> None:
    from fpdt.checkpoint import shard

    write = shard.write_all

    def write_or_fail(file: Any, block: memoryview) -> None:
        if file.tell() + len(block) > fault.num_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, block)

    shard.write_all = write_or_fail


def allow_fp16() -> None:
    """Makes DeepSpeed's accelerator answer that it has fp16."""
    from deepspeed.accelerator import get_accelerator

    type(get_accelerator()).is_fp16_supported = lambda _: True


def use_plain_disk() -> None:
    from fpdt.testing.plain_disk import use_plain_disk

    use_plain_disk()


def leak_in_layers(fault: Leak) -> RemovableHandle:
    """Keeps the bytes of the fault at every forward of a module whose class is a decoder layer, until removed."""
    import torch
    from torch.nn.modules.module import register_module_forward_pre_hook

    kept: list[torch.Tensor] = []

    def leak(module: nn.Module, _: Any) -> None:
        if type(module).__name__.endswith(LAYER_SUFFIX):
            kept.append(torch.ones(fault.num_bytes, dtype=torch.uint8))

    return register_module_forward_pre_hook(leak)
