"""Prepares data for a run, once, before its ranks start: `fpdt run` does it by itself.

    python -m fpdt.prepare --data FILE [--tokenizer DIR ...] (--plan plan.json | --vocab-size N --seq-len N [--packing])

Text, rows and records become a token store in a folder beside the data, or in `--data-cache`; of every kind is checked
what a rank would check before its first step. It is a command of its own and not rank 0 before a barrier: what is wrong
with the data is one error, told before there is a process group, a model or another rank.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpdt.data.options import DataOptions, add_options, given_options
from fpdt.errors import FpdtError
from fpdt.wire.lifeline import CONTROLLER_PID_VARIABLE, die_with_parent

if TYPE_CHECKING:
    from fpdt.data.demand import Demand


REMARK = "attention goes across the documents that share a sequence; plan with --packing to keep it to each"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. With --json one object is printed: what was found, or `error` with `message` and `hint`."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    if args.plan is None and (args.vocab_size is None or args.seq_len is None):
        parser.error("give --plan, or --vocab-size and --seq-len")
    if CONTROLLER_PID_VARIABLE in os.environ:
        die_with_parent()
    try:
        found = prepare_data(args)
    except (FpdtError, OSError) as error:
        hint = getattr(error, "hint", "") or "look at the disk, and at the folder that it names"
        if args.json:
            print(json.dumps({"error": {"message": str(error), "hint": hint}}), flush=True)
        else:
            print(f"error: {error}\nhint: {hint}", file=sys.stderr)
        return 1
    print(json.dumps(found) if args.json else _text(found), flush=True)
    return 0


def prepare_data(args: argparse.Namespace) -> dict[str, Any]:
    """Raises DataError for data that the plan cannot be trained on."""
    from fpdt.data.demand import Demand
    from fpdt.data.preparation import prepare
    from fpdt.data.sources import open_data

    options = DataOptions.of(args.data, given_options(args))
    demand = Demand(args.vocab_size, args.seq_len, args.packing, 0) if args.plan is None else _demand(args.plan)
    folder = prepare(options, demand.vocab_size)
    data = open_data(options, demand)
    documents = data.corpus.documents
    follows = documents is not None and len(documents) > 1 and not demand.packs
    return {
        "tokens": len(data.corpus.tokens),
        "documents": None if documents is None else len(documents),
        "folder": None if folder is None else str(folder),
        "cut": data.cut,
        "remark": REMARK if follows else None,
    }


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fpdt.prepare", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="what the run is to read")
    add_options(parser)
    parser.add_argument("--plan", type=Path, help="plan.json of the run")
    parser.add_argument("--vocab-size", type=int, help="of the model, in place of --plan")
    parser.add_argument("--seq-len", type=int, help="of a sequence, in place of --plan")
    parser.add_argument("--packing", action="store_true", help="documents share sequences, in place of --plan")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _demand(plan: Path) -> Demand:
    from fpdt.data.demand import plan_demand
    from fpdt.plan import load_plan

    return plan_demand(load_plan(plan))


def _text(found: dict[str, Any]) -> str:
    documents = "" if found["documents"] is None else f" in {found['documents']} documents"
    remark = "" if found["remark"] is None else f"\nremark: {found['remark']}"
    place = "" if found["folder"] is None else f": {found['folder']}"
    return f"{found['tokens']} tokens{documents}, as {found['cut']}{place}{remark}"


if __name__ == "__main__":
    sys.exit(main())
