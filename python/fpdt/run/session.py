"""A plan made ready on one rank: process group, arenas, model and engine; then optimizer steps."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import deepspeed
import torch
import transformers

from fpdt.attention import backend_named, default_backend
from fpdt.devices import create_runtime
from fpdt.measure.memory import LiveBytes, PoolBytes, measure_pools
from fpdt.measure.timing import OpTime, Recorder, StepTimes
from fpdt.ops import HANDLERS
from fpdt.plan import Plan, decode
from fpdt.run.data import sharded_batches
from fpdt.run.engine import build_engine
from fpdt.run.executor import Executor
from fpdt.run.ranks import check_same_plan, join_process_group, sequence_group
from fpdt.run.runtime import Runtime
from fpdt.run.step import StepOutcome, StepRunner
from fpdt.testing.debug import DebugMode
from fpdt.testing.faults import Stop, fault_from_environment, leak_per_call, slow_handlers
from fpdt.version import VERSION
from fpdt.wire.protocol import MemoryRecord, OpRecord

MICROSECONDS = 1e6


def create(header: bytes, columns: Mapping[str, bytes], options: Mapping[str, Any]) -> PlanSession:
    """A session from a plan's wire frames; a collective over all ranks of the plan.

    `options` has the keys of protocol.RunOptions. RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT come from the
    environment. Raises before the first step when ranks hold different plans or this rank cannot run its own.
    """
    return PlanSession(decode(header, columns), options)


class PlanSession:
    """Owns arenas, engine and memory tracker of a rank until `close`. What comms.Session asks for."""

    def __init__(self, plan: Plan, options: Mapping[str, Any]) -> None:
        self.digest = plan.digest
        self._exit = ExitStack()
        # On from here, so that weights and DeepSpeed's own buffers are counted too.
        self._live = self._exit.enter_context(LiveBytes())
        self._fault = fault_from_environment()
        self._ranks = join_process_group(plan)
        check_same_plan(plan, self._ranks)
        self._runtime = _make_runtime(plan, options, self._ranks.rank, self._ranks.local_rank)
        self._exit.callback(self._runtime.close)
        self._recorder = Recorder(self._runtime)
        self._executor = self._make_executor(plan, options)
        self._steps = self._make_steps(plan, options)

    @property
    def device(self) -> str:
        device = self._runtime.device
        return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else device.type

    @property
    def versions(self) -> Mapping[str, str]:
        return {
            "fpdt": VERSION,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "deepspeed": str(deepspeed.__version__),
            "transformers": transformers.__version__,
        }

    def run_step(self, step: int) -> dict[str, Any]:
        """One optimizer step. Keys: those of protocol.StepDone without `step`, and `records` for telemetry."""
        if isinstance(self._fault, Stop):
            self._fault.before_step(self._ranks.rank, step)
        self._live.reset_peak()
        self._runtime.reset_device_peak()
        self._recorder.begin_step()
        self._executor.begin_step()
        outcome = self._steps.run(step)
        times = self._recorder.end_step()
        memory = measure_pools(self._runtime, self._live)
        return {**_report(outcome, times, memory, self._runtime), "records": _records(step, times, memory)}

    def close(self) -> None:
        """Gives back arenas and turns the memory tracker off. The process group stays: see worker.leave."""
        self._exit.close()

    def _make_executor(self, plan: Plan, options: Mapping[str, Any]) -> Executor:
        handlers = slow_handlers(HANDLERS, self._fault)
        debug = DebugMode(plan, self._runtime, poison=True, tracker=self._live) if options["poison"] else None
        return Executor(plan, self._runtime, handlers, self._recorder, debug)

    def _make_steps(self, plan: Plan, options: Mapping[str, Any]) -> StepRunner:
        name, device = options["attention"], self._runtime.device
        engine = build_engine(
            plan,
            self._executor,
            default_backend(device.type) if name is None else backend_named(name),
            self._recorder,
            device,
            leak_per_call(self._fault),
        )
        dump_grads = options["dump_grads"]
        return StepRunner(
            plan,
            engine,
            self._executor,
            sharded_batches(plan, options["data"], self._ranks.rank),
            None if dump_grads is None else Path(dump_grads),
        )


def _make_runtime(plan: Plan, options: Mapping[str, Any], rank: int, local_rank: int) -> Runtime:
    return create_runtime(
        plan.cluster["device"],
        plan.arenas,
        sequence_group(plan, rank),
        copy_mode=options["copy_mode"] or "eager",
        seed=(options["seed"] or 0) + rank,
        device_index=local_rank,
    )


def _report(outcome: StepOutcome, times: StepTimes, memory: PoolBytes, runtime: Runtime) -> dict[str, Any]:
    return {
        "loss": None if "loss" in outcome.non_finite else outcome.loss,
        "seconds": times.seconds,
        "num_tokens": outcome.num_tokens,
        "hbm_bytes": memory.hbm,
        "host_bytes": memory.host,
        "copied_bytes": runtime.take_copied_bytes(),
        "by_kind": times.by_kind,
        "idle_seconds": times.idle_seconds,
        "non_finite": outcome.non_finite,
    }


def _records(step: int, times: StepTimes, memory: PoolBytes) -> list[OpRecord | MemoryRecord]:
    end = _microseconds(times.seconds)
    ops = [_op_record(step, item) for item in times.ops]
    return [
        *ops,
        MemoryRecord(step=step, pool="hbm", ts_us=end, bytes=memory.hbm),
        MemoryRecord(step=step, pool="host", ts_us=end, bytes=memory.host),
    ]


def _op_record(step: int, item: OpTime) -> OpRecord:
    return OpRecord.model_construct(
        step=step,
        section=item.section,
        layer=item.layer,
        op=item.op,
        op_kind=item.kind,
        stream=item.stream,
        start_us=_microseconds(item.start),
        duration_us=_microseconds(item.duration),
        bytes=item.bytes,
    )


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * MICROSECONDS))
