"""What a session says of a step and of an evaluation, in the words of the protocol."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import deepspeed
import torch
import transformers

from fpdt.measure.timing import OpTime, StepTimes
from fpdt.run.evaluation import EvaluationOutcome
from fpdt.run.step import StepOutcome
from fpdt.version import VERSION
from fpdt.wire.telemetry_batch import MemoryRecord, OpRecord

MICROSECONDS = 1e6


def step_report(outcome: StepOutcome, times: StepTimes) -> dict[str, Any]:
    """Keys of protocol.StepDone, those of memory, copies and the number of the step apart."""
    return {
        "loss": None if "loss" in outcome.non_finite else outcome.loss,
        "learning_rate": outcome.learning_rate,
        "gradient_norm": None if "gradientNorm" in outcome.non_finite else outcome.gradient_norm,
        "seconds": times.seconds,
        "num_tokens": outcome.num_tokens,
        "loss_scale": outcome.loss_scale,
        "skipped": outcome.skipped,
        "by_kind": times.by_kind,
        "idle_seconds": times.idle_seconds,
        "ops_timed": times.ops_timed,
        "non_finite": outcome.non_finite,
        "non_finite_place": outcome.non_finite_place,
    }


def evaluation_report(outcome: EvaluationOutcome, seconds: float) -> dict[str, Any]:
    """Keys of protocol.Evaluated without digest and step."""
    return {
        "loss": None if outcome.non_finite else outcome.loss,
        "num_tokens": outcome.num_tokens,
        "num_sequences": outcome.num_sequences,
        "seconds": seconds,
        "non_finite": outcome.non_finite,
    }


def records(
    step: int, times: StepTimes, streams: Sequence[str], pool_bytes: Mapping[str, int]
) -> list[OpRecord | MemoryRecord]:
    """Telemetry of a step: its single ops, and bytes by pool where they were measured."""
    end = _microseconds(times.seconds)
    ops = [_op_record(step, item, streams) for item in times.ops]
    memory = [MemoryRecord(step=step, pool=name, ts_us=end, bytes=size) for name, size in pool_bytes.items()]
    return [*ops, *memory]


def _op_record(step: int, item: OpTime, streams: Sequence[str]) -> OpRecord:
    return OpRecord.model_construct(
        step=step,
        section=item.section,
        layer=item.layer,
        op=item.op,
        op_kind=item.kind,
        stream=streams[item.stream],
        start_us=_microseconds(item.start),
        duration_us=_microseconds(item.duration),
        bytes=item.bytes,
    )


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * MICROSECONDS))


def package_versions() -> dict[str, str]:
    return {
        "fpdt": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "deepspeed": str(deepspeed.__version__),
        "transformers": transformers.__version__,
    }
