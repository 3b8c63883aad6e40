"""A plan made ready on one rank: process group, arenas, model and engine; then optimizer steps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch

from fpdt.checkpoint.checkpoints import Checkpoints, Trained
from fpdt.data.batches import open_batches
from fpdt.data.options import DataOptions
from fpdt.devices import peak_bytes, reset_peak
from fpdt.errors import DataError
from fpdt.measure.memory import measure_load
from fpdt.measure.sampling import samples_ops
from fpdt.measure.timing import StepTimes
from fpdt.measure.trace import TraceWriter
from fpdt.models import Kernels
from fpdt.models.export import write_model
from fpdt.models.plan_model import plan_writer
from fpdt.models.weights import WeightsError, check_vocabulary
from fpdt.ops import HANDLERS
from fpdt.plan import Plan, decode
from fpdt.run.communicators import connect
from fpdt.run.engine import StreamedEngine, build_engine, check_config, print_communication, start_deepspeed
from fpdt.run.evaluation import EvaluationRunner, HeldOut, open_held_out
from fpdt.run.executor import Executor
from fpdt.run.kernels import check_plan_kernels, kernel_names, plan_kernels
from fpdt.run.loss_scale import make_loss_scaling
from fpdt.run.non_finite import NonFinitePolicy, NonFiniteWatch
from fpdt.run.open_runtime import make_runtime, open_run_files
from fpdt.run.planned_batches import BatchSource, ResumableSource
from fpdt.run.rank_disk import rank_disk
from fpdt.run.rank_model import rank_model
from fpdt.run.ranks import limit_groups
from fpdt.run.reports import evaluation_report, package_versions, records, step_report
from fpdt.run.same_input import check_same_input
from fpdt.run.step import StepOutcome, StepRunner
from fpdt.run.step_memory import StepMemory
from fpdt.run.stream import StreamedModel, stream
from fpdt.run.warm_up import warm_up_ops
from fpdt.run.zero import LayerWeights, time_engine
from fpdt.testing.debug import DebugMode


def create(
    header: bytes,
    prose: bytes,
    columns: Mapping[str, bytes],
    options: Mapping[str, Any],
    *,
    open_source: Callable[[Plan, DataOptions, int], ResumableSource] = open_batches,
) -> PlanSession:
    """A session from a plan's wire frames; a collective over all ranks of the plan.

    `options` has the keys of protocol.RunOptions; `open_source` makes what a rank trains on. RANK, WORLD_SIZE,
    MASTER_ADDR and MASTER_PORT come from the environment. Raises before the first step when ranks hold different
    plans or this rank cannot run its own.
    """
    return PlanSession(decode(header, prose, columns), options, open_source=open_source)


class PlanSession:
    """Owns arenas, engine and memory tracker of a rank until `close`. What rank_loop.Session asks for."""

    def __init__(
        self,
        plan: Plan,
        options: Mapping[str, Any],
        *,
        tracks_memory: bool = True,
        open_source: Callable[[Plan, DataOptions, int], ResumableSource] = open_batches,
    ) -> None:
        """`open_source` makes what a rank trains on."""
        self.digest = plan.digest
        self._plan = plan
        self._exit = ExitStack()
        kernels = plan_kernels(plan)
        is_debug = bool(options["poison"])
        # On from here, so that weights and DeepSpeed's own buffers are counted too.
        counts = is_debug or (tracks_memory and plan.device == "cpu")
        self._memory = StepMemory(plan, counts=counts, always=is_debug)
        self._exit.callback(self._memory.close)
        communicators = connect(plan)
        self.communicator_bytes = communicators.num_bytes
        """Of the device, taken for collectives; None where it cannot tell."""
        self._ranks = communicators.ranks
        checked = check_plan_kernels(plan, kernels, self._ranks.device)
        if self._ranks.rank == 0:
            print("\n".join(checked), file=sys.stderr, flush=True)
        # What the test took is free again, and no part of the load.
        reset_peak(self._ranks.device)
        self._memory.live.reset_peak()
        check_config(plan)
        # A missing file of tokens, a full disk or a folder in use is told before a model is built.
        batches = open_source(plan, DataOptions.of_run(options), self._ranks.rank)
        self._exit.callback(batches.close)
        held_out = open_held_out(plan, options, self._ranks.rank)
        if held_out is not None:
            self._exit.callback(held_out.close)
        self.checkpoints = Checkpoints(options, self._ranks.rank, self._ranks.world_size)
        """Where the run starts, and what it saves."""
        self._exit.callback(self.checkpoints.close)
        files = open_run_files(plan, options)
        self._weights = None if options["weights"] is None else Path(options["weights"])
        export = options["export"]
        self._export = None if export is None else plan_writer(plan, Path(export), self._weights)
        if self._weights is not None:
            check_vocabulary(self._weights, int(plan.model["vocabSize"]))
        check_same_input(self._ranks, batches, held_out, self._weights)
        self.streamed, engine = self._build(plan, kernels)
        self.load_pool_bytes = measure_load(plan.pool_kinds, peak_bytes(self._ranks.device), self._memory.live)
        """High water of start-up by pool."""
        kernel_bytes = warm_up_ops(plan, self.streamed, self._ranks.device)
        if kernel_bytes is not None and self._ranks.rank == 0:
            print(f"kernels of ops took {kernel_bytes} bytes of the device", file=sys.stderr, flush=True)
        # Arenas come last: what building a model and its engine needs for a moment is free again by then.
        self.runtime = make_runtime(plan, options, communicators, files)
        self._exit.callback(self.runtime.close)
        self.kernels = {**kernel_names(plan), "copies": self.runtime.copy_mode}
        """Those that it runs with, by kind, and who launches copies."""
        record_layers = int(options.get("record_layers") or 0)
        self._recorder = self.runtime.make_recorder(plan.kind_names, record_layers)
        self._records_ops = record_layers > 0
        self.debug = DebugMode(plan, self.runtime, poison=True, tracker=self._memory.live) if is_debug else None
        """What checks ops, where the options ask for it."""
        handlers = HANDLERS if self.debug is None else self.debug.wrap(HANDLERS)
        self._executor = Executor(plan, self.runtime, handlers, self._recorder)
        self.engine = self._attach(engine, self._executor)
        self.optimizer: Any = engine.optimizer
        """DeepSpeed's."""
        self._steps = self._make_steps(batches, options)
        self._evaluation = None if held_out is None else self._make_evaluation(held_out)
        self._trace_steps = frozenset(options.get("trace_steps") or ())
        self._trace_folder = Path(options.get("trace_folder") or ".")
        self._num_steps = 0
        self.checkpoints.resume(Trained(plan, engine, self.streamed.model, batches, self._ranks.device, self.versions))

    def _build(self, plan: Plan, kernels: Kernels) -> tuple[StreamedModel, Any]:
        """The model and DeepSpeed's engine around it."""
        start_deepspeed()
        folders = self._exit.enter_context(rank_disk(plan))
        self._exit.callback(self.checkpoints.release_states)  # A checkpoint may still be read from them.
        model = rank_model(plan, self._weights, self._ranks.device, folders)
        streamed = stream(model, plan, kernels, self._ranks.device)
        engine = build_engine(streamed, plan, folders)
        limit_groups(plan.collective_timeout)
        return streamed, engine

    def _attach(self, engine: Any, executor: Executor) -> StreamedEngine:
        plan, streamed = self._plan, self.streamed
        program = streamed.attach(executor, LayerWeights(streamed.model, streamed.modules, plan.deepspeed))
        time_engine(engine, self._recorder)
        loss_scale = make_loss_scaling(engine.optimizer, plan)
        return StreamedEngine(engine, streamed.model, program, self._recorder, self._ranks.device, loss_scale)

    @property
    def device(self) -> str:
        device = self.runtime.device
        return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else device.type

    @property
    def versions(self) -> Mapping[str, str]:
        return package_versions()

    @property
    def next_step(self) -> int:
        return self.checkpoints.next_step

    @property
    def resumed(self) -> str | None:
        return self.checkpoints.resumed

    @property
    def remarks(self) -> Sequence[str]:
        return [*self.runtime.remarks, *self.checkpoints.remarks]

    def request_stop(self) -> None:
        """Has all ranks agree, at the start of the next step, to begin none."""
        self._steps.is_stopping = True

    def save_checkpoint(self, step: int, *, wait: bool) -> None:
        """Begins to write the state before `step`; with `wait` it is done on return."""
        self.checkpoints.save(step, wait=wait)

    def save_when_due(self, step: int, num_steps: int) -> None:
        """What a controller decides otherwise: a checkpoint before `step`, every so many, and when all are done."""
        self.checkpoints.save_when_due(step, num_steps)

    def take_saved(self) -> list[dict[str, Any]]:
        """Checkpoints finished since the last call. Keys: those of protocol.Checkpointed without `digest`."""
        return [saved.to_message() for saved in self.checkpoints.take_saved()]

    def run_step(self, step: int) -> dict[str, Any]:
        """One optimizer step. Keys: those of protocol.StepDone without `step`, and `records` for telemetry.

        Raises StopAgreed where a rank was asked to stop before all had begun it.
        """
        number, self._num_steps = self._num_steps, self._num_steps + 1
        measures = self._memory.begin_step(number, self.runtime)
        outcome, times = self.time_step(step, times_ops=samples_ops(number) or self._records_ops)
        if measures:
            self._memory.end_step(self.runtime)
        return {
            **step_report(outcome, times),
            "pool_bytes": self._memory.pool_bytes,
            "memory_measured": measures,
            "copied_bytes": self.runtime.take_copied_bytes(),
            "records": records(step, times, self._plan.streams, self._memory.pool_bytes if measures else {}),
        }

    def time_step(self, step: int, times_ops: bool = True) -> tuple[StepOutcome, StepTimes]:
        """One optimizer step, with nothing measured but time: that of ops where it is free, or asked for."""
        with self._trace(step) as sink:
            self._recorder.begin_step(sink, times_ops)
            outcome = self._steps.run(step)
            times = self._recorder.end_step()
        return outcome, times

    def evaluate(self, note: Callable[[int], None]) -> dict[str, Any]:
        """Evaluates the held-out data of the options; a collective. Keys: those of protocol.Evaluated, but for two.

        `note` is called with the number of each sequence.
        """
        if self._evaluation is None:
            raise DataError("there is no data to evaluate on", "start the run with --eval-data")
        self._recorder.begin_step(None, times_ops=False)
        outcome = self._evaluation.run(note)
        seconds = self._recorder.end_step().seconds
        # Not those of the next step.
        self.runtime.take_copied_bytes()
        return evaluation_report(outcome, seconds)

    def export_model(self) -> dict[str, Any]:
        """Writes the model, or its adapters, into the folder of the options; a collective.

        Keys: protocol.Exported's, but for two.
        """
        if self._export is None:
            raise WeightsError("there is no folder to export the model to", "start the run with --export")
        writer, is_sharded = self._export, int(self._plan.run["zeroStage"]) == 3
        write_model(writer, self.engine.model, is_sharded, is_writer=self._ranks.rank == 0)
        return {"folder": str(writer.target), "num_weights": writer.num_weights, "bytes": writer.num_bytes}

    def close(self) -> None:
        """Gives back arenas and turns the memory tracker off. The process group stays: see worker.leave."""
        if self._ranks.rank == 0 and self._num_steps > 0:
            print_communication(self._plan.deepspeed)
        self._exit.close()

    def _trace(self, step: int) -> AbstractContextManager[TraceWriter | None]:
        if step not in self._trace_steps:
            return nullcontext()
        plan = self._plan
        return TraceWriter(self._trace_folder, step, self._ranks.rank, plan.streams, plan.kind_names)

    def _make_steps(self, batches: BatchSource, options: Mapping[str, Any]) -> StepRunner:
        dump_grads = options["dump_grads"]
        return StepRunner(
            self._plan,
            self.engine,
            batches,
            None if dump_grads is None else Path(dump_grads),
            before_micro_step=None if self.debug is None else self.debug.begin_micro_step,
            before_update=self.checkpoints.release_states,
            watch=self._make_watch(options.get("on_non_finite")),
        )

    def _make_watch(self, policy: NonFinitePolicy | None) -> tuple[NonFiniteWatch, NonFinitePolicy] | None:
        if policy is None:
            return None
        streamed, labels = self.streamed, self._executor.buffer("labels")
        return NonFiniteWatch(self._plan, streamed.extra, streamed.emitted, labels, self._ranks.rank), policy

    def _make_evaluation(self, held_out: HeldOut) -> EvaluationRunner:
        return EvaluationRunner(self.engine, held_out, None if self.debug is None else self.debug.begin_evaluation)
