"""The worker of one rank.

Under a controller (`fpdt run`): `python -m fpdt.worker --controller ADDRESS --telemetry ADDRESS --run ID`.
Stand-alone, one process per rank: `python -m fpdt.worker --plan plan.json --data FILE`, as torchrun and the deepspeed
launcher start it too; rank 0 prints a JSON line per step. RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT
come from the environment; without RANK it is a single rank. Such a rank ends with the launcher that started it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from fpdt.data.options import add_options, given_options
from fpdt.environment import prepare_imports
from fpdt.errors import is_explained
from fpdt.testing import faults
from fpdt.wire.exits import exit_now
from fpdt.wire.lifeline import die_with_parent
from fpdt.wire.protocol import CopyMode, NonFinitePolicy, SavePolicy
from fpdt.wire.schedule import is_due

if TYPE_CHECKING:
    from fpdt.plan import Frames


DEFAULT_KEEP = 3
LAUNCHERS = ("TORCHELASTIC_RUN_ID", "CROSS_RANK")
"""Variables that torchrun and the deepspeed launcher set, and no user."""


class MissingPackageError(ImportError):
    """PyTorch or DeepSpeed is not there; `hint` says what to install."""

    def __init__(self, error: ImportError | OSError) -> None:
        name = getattr(error, "name", None) or "a package"
        super().__init__(f"cannot import {name} with {sys.executable}: {error}")
        self.hint = "install python/requirements.txt and torch into this interpreter, or pass another one with --python"


def create(header: bytes, prose: bytes, columns: Mapping[str, bytes], options: Mapping[str, Any]) -> Any:
    """session.create, with the heavy imports. Raises MissingPackageError where one of them is not installed."""
    prepare_imports(str(json.loads(header)["device"]))
    try:
        from fpdt.run.session import create as create_session
    except (ImportError, OSError) as error:
        # OSError: torch loads its libraries itself, and one of them is missing.
        raise MissingPackageError(error) from error
    if faults.VARIABLE in os.environ:
        faults.install()
    return create_session(header, prose, columns, options)


def read_plan_file(path: Path) -> Frames:
    """Header, prose and columns of a plan.json as they travel. Raises PlanError for a file that is not one."""
    from fpdt.plan import read_frames

    return read_frames(path)


def run_alone(args: argparse.Namespace) -> None:
    """Every step of the plan, or `--steps` of them, without a controller."""
    frames = read_plan_file(args.plan)
    session = create(*frames, run_options(args))
    steps = args.steps if args.steps is not None else int(json.loads(frames.header)["run"]["numSteps"])
    first = session.next_step
    for num_done in range(first, steps + 1):
        if num_done > first:
            result = session.run_step(num_done - 1)
            result.pop("records")
            print_result({"step": num_done - 1, **result})
            session.save_when_due(num_done, steps)
            session.take_saved()
        if args.eval_data is not None and is_due(num_done, steps, args.eval_every):
            print_result({"evaluatedAfter": num_done, **session.evaluate(lambda sequence: None)})
    if args.export is not None:
        session.export_model()
    session.close()


def print_result(result: Mapping[str, Any]) -> None:
    """One JSON line, of rank 0."""
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(result), flush=True)


def run_options(args: argparse.Namespace) -> dict[str, Any]:
    """The command line as the keys of protocol.RunOptions."""
    return {
        "data": str(args.data),
        "data_options": given_options(args),
        "weights": None if args.weights is None else str(args.weights),
        "export": None if args.export is None else str(args.export),
        "dump_grads": None if args.dump_grads is None else str(args.dump_grads),
        "copy_mode": args.copy_mode,
        "poison": args.poison,
        "seed": args.copy_seed,
        "disk_folder": None if args.disk_folder is None else str(args.disk_folder),
        "disk_direct": args.disk_direct,
        "record_layers": args.record_layers,
        "trace_steps": args.trace_steps,
        "trace_folder": None if args.trace_folder is None else str(args.trace_folder),
        "checkpoint": checkpoint_options(args),
        "resume": resume_options(args),
        "on_non_finite": args.on_non_finite,
        "evaluation": None
        if args.eval_data is None
        else {"data": str(args.eval_data), "sequences": args.eval_sequences, "every": args.eval_every},
    }


def checkpoint_options(args: argparse.Namespace) -> dict[str, Any] | None:
    if args.checkpoint is None:
        return None
    return {
        "folder": str(args.checkpoint),
        "every": args.every,
        "keep": args.keep,
        "on_save_failure": args.on_save_failure,
    }


def resume_options(args: argparse.Namespace) -> dict[str, Any] | None:
    if args.resume is None:
        return None
    is_newest = args.resume == "auto"
    return {"newest": is_newest, "path": None if is_newest else args.resume}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fpdt.worker", description="Run a plan as one rank.")
    bridge = parser.add_argument_group("under a controller")
    bridge.add_argument("--controller", help="address of the controller's ROUTER")
    bridge.add_argument("--telemetry", help="address of the controller's PULL")
    bridge.add_argument("--run", help="id of the run")
    bridge.add_argument("--incarnation", type=int, default=0, help="number of restarts of this rank")
    alone = parser.add_argument_group("stand-alone")
    alone.add_argument("--plan", type=Path, help="plan.json")
    alone.add_argument("--data", type=Path, help="what to read tokens from; docs/data.md lists what it may be")
    add_options(alone)
    alone.add_argument("--weights", type=Path, help="Hugging Face folder to start from; default: the plan's seed")
    alone.add_argument("--export", type=Path, help="new folder for the trained model, as Hugging Face has it")
    alone.add_argument("--local_rank", "--local-rank", type=int, help="what launchers add; LOCAL_RANK is what counts")
    alone.add_argument("--steps", type=int, help="optimizer steps; default: the plan's numSteps")
    alone.add_argument("--on-non-finite", choices=get_args(NonFinitePolicy), help="default: as DeepSpeed does")
    alone.add_argument("--dump-grads", type=Path, help="directory for each step's gradients before clipping")
    alone.add_argument("--copy-mode", choices=get_args(CopyMode), help="order of asynchronous ops on the cpu device")
    alone.add_argument("--seed", dest="copy_seed", type=int, help="seed of --copy-mode random and threads")
    alone.add_argument("--poison", action="store_true", help="fill memory that nobody may read with NaN, check leaks")
    alone.add_argument("--disk-folder", type=Path, help="folder on a fast local disk, for plans with a file pool")
    alone.add_argument(
        "--disk-direct",
        action=argparse.BooleanOptionalAction,
        help="past the page cache, or never; default: where the file system can",
    )
    alone.add_argument("--record-layers", type=int, default=0, help="keep op records of one layer in so many; 0: none")
    alone.add_argument("--trace-steps", type=int, nargs="*", default=[], help="steps to write a Chrome trace of")
    alone.add_argument("--trace-folder", type=Path, help="directory for traces; default: here")
    saving = parser.add_argument_group("checkpoints of a stand-alone run")
    saving.add_argument("--checkpoint", type=Path, help="folder for them; one is always written after the last step")
    saving.add_argument("--every", type=int, help="steps between two")
    saving.add_argument("--keep", type=int, default=DEFAULT_KEEP, help=f"how many stay; default: {DEFAULT_KEEP}")
    saving.add_argument("--on-save-failure", choices=get_args(SavePolicy), default="stop", help="default: stop")
    saving.add_argument("--resume", help="a checkpoint, or auto: the newest sound one of --checkpoint")
    alone.add_argument("--eval-data", type=Path, help="held-out tokens to evaluate, for plans made with --evaluate")
    alone.add_argument("--eval-sequences", type=positive, help="of them; default: all that fill rounds of the replicas")
    alone.add_argument("--eval-every", type=positive, help="steps between two evaluations; default: at the end alone")
    return parser


def positive(text: str) -> int:
    """A number from 1 on, for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.controller is not None:
        if args.telemetry is None or args.run is None:
            parser.error("--controller needs --telemetry and --run")
        _serve(args)
    if args.eval_data is None and (args.eval_every is not None or args.eval_sequences is not None):
        parser.error("--eval-every and --eval-sequences need --eval-data")
    if args.plan is None or args.data is None:
        parser.error("give --plan and --data, or --controller, --telemetry and --run")
    if any(name in os.environ for name in LAUNCHERS):
        die_with_parent()
    leave(_exit_code(args))


def _serve(args: argparse.Namespace) -> NoReturn:
    from fpdt.wire import rank_loop

    rank = int(os.environ.get("RANK", "0"))
    rank_loop.serve(args.controller, args.telemetry, args.run, rank, args.incarnation, "fpdt.worker:create")


def _exit_code(args: argparse.Namespace) -> int:
    try:
        run_alone(args)
    except Exception as error:
        if not is_explained(error):
            traceback.print_exception(error)
        hint = getattr(error, "hint", "")
        print(f"fpdt: {error}" + (f"\n  {hint}" if hint else ""), file=sys.stderr)
        return 1
    return 0


def leave(code: int) -> NoReturn:
    """Ends the process without interpreter teardown, in which a gloo process may abort."""
    exit_now(code)


if __name__ == "__main__":
    main()
