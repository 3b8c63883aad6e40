"""Kernels beside attention against their plain twins: scratch as planned and as measured, traffic, launches, seconds.

    npm run bench:fused -- --json
    PYTHONPATH=python .venv/bin/python bench/fused.py --dtype bfloat16 --rows 256

Of one decoder layer and the head of a Llama of a size that a CPU does. A row is an op of a plan: `fused` with the
kernels that a plan of the dtype names, `plain` with none. Scratch is what the planner puts into the memory plan and
what LiveBytes measures around the handler's own tensors: it must agree to the byte (but in a plain loss, whose formula
has a few bytes of a row too many), or the exit code is 1. `traffic` is what the planner prices: bytes that element-wise
kernels read and write; `moved` what PyTorch's operators were given and gave. Seconds: the least of some repeats on this
machine's CPU. Prints one JSON object, or a table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

import tests.families as families
from fpdt.measure.memory import LiveBytes
from tests.counted_work import Work
from tests.families import Built, family_of
from tests.model_code import ask_planner
from tests.op_scratch import op_views, run_op

CONFIG = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 896,
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 4000,
    "max_position_embeddings": 1 << 20,
}
BLOCK_BYTES = 1 << 20
"""Smaller than a plan's, so that tensors of this size have several blocks."""
CODES = ("pre", "preBwd", "post", "postBwd")
OPS = ("loss", "lossOnly", "merge")
PLAIN_LOSS = 1.002
TWINS = {"fused": "auto", "plain": "plain"}
"""In the words of a run."""
REPEATS = 3
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Run = Callable[[], None]
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of the model")
    parser.add_argument("--rows", type=int, default=256, help="tokens of an op")
    args = parser.parse_args()
    if args.rows < 1:
        parser.error(f"--rows: expected a whole number of at least 1, found {args.rows}")
    families.ROWS = args.rows
    twins = {name: measured(kernels, args.dtype, args.rows) for name, kernels in TWINS.items()}
    ops = {name: {kernels: twin[name] for kernels, twin in twins.items()} for name in twins["fused"]}
    exact = all(row["exact"] for twin in twins.values() for row in twin.values())
    setting = {"dtype": args.dtype, "rows": args.rows, "blockBytes": BLOCK_BYTES, "config": CONFIG}
    found = {**setting, "exact": exact, "ops": ops}
    print(json.dumps(found) if args.json else table(found))
    return 0 if exact else 1


def measured(kernels: str, dtype: str, rows: int) -> dict[str, Row]:
    """By op: planned and measured scratch, traffic, kernels, seconds."""
    asked = {"config": CONFIG, "dtype": dtype, "kernels": kernels, "rows": rows, "blockBytes": BLOCK_BYTES}
    (answer,) = ask_planner([asked])
    model = Built(family_of("bench", CONFIG, {dtype: answer}), DTYPES[dtype])
    found = {}
    runs = code_runs(model)
    for name in CODES:
        planned = {**answer["work"]["layers"][0][name], "temporaries": answer["peaks"]["layers"][0][name]}
        found[name] = row_of(runs[name], planned, 1.0)
    for name in OPS:
        views = op_views(model, name, rows)
        more = PLAIN_LOSS if name == "loss" and "loss" not in answer["fused"] else 1.0
        found[name] = row_of(partial(run_op, model.engine, name, views), answer["ops"][name], more)
    return found


def code_runs(model: Built) -> Mapping[str, Run]:
    """The codes of the one decoder layer, each on views of its own."""
    codes = families.measure_codes(model, lambda code, views: partial(run_code, code, views))
    runs: Mapping[str, Run] = codes["layers"][0]
    return runs


def run_code(code: Any, views: Any) -> None:
    with torch.no_grad():
        code.run(dict(views))


def row_of(run: Run, planned: Mapping[str, Any], more: float) -> Row:
    with LiveBytes() as live, live.scope() as scope:
        run()
    work = Work()
    with work:
        run()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    scratch = planned["temporaries"]
    return {
        "scratchPlanned": scratch,
        "scratchMeasured": scope.peak_bytes,
        "exact": scope.peak_bytes <= scratch <= more * scope.peak_bytes,
        "traffic": planned["elementBytes"],
        "moved": work.num_bytes,
        "kernels": work.kernels,
        "seconds": min(seconds),
    }


def table(found: Mapping[str, Any]) -> str:
    lines = [
        f"{found['rows']} rows in {found['dtype']}, blocks of {found['blockBytes']} bytes; MB, fused / plain",
        "op            scratch planned      measured     traffic priced       moved   kernels   seconds",
    ]
    for name, twins in found["ops"].items():
        fused, plain = twins["fused"], twins["plain"]

        def both(field: str, scale: float = 1e6, digits: int = 2, fused: Row = fused, plain: Row = plain) -> str:
            return f"{fused[field] / scale:.{digits}f} / {plain[field] / scale:.{digits}f}"

        parts = [both("scratchPlanned"), both("scratchMeasured"), both("traffic"), both("moved")]
        exact = "" if fused["exact"] and plain["exact"] else "  NOT AS PLANNED"
        parts += [both("kernels", 1, 0), both("seconds", 1, 4)]
        lines.append(f"{name:9}" + "".join(f"{part:>18}" for part in parts) + exact)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
