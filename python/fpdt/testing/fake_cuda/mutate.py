"""`python -m fpdt.testing.fake_cuda.mutate [--sample N] plan.json ...`: breaks the CUDA runtime in every way it
knows.

Prints a JSON object a mutant: operator, what, fate and detail, as `npm run mutate` has them. A mutant is killed when it
fails on a made-up device (`refused`: with an error of its own, `changed`: in what it orders); `equal` ones are listed
with the reason, `survived` are all others. A sample takes so many of each operator, drawn with a fixed seed.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fpdt.plan import Plan, load_plan
from fpdt.testing.fake_cuda.equivalents import EQUIVALENT
from fpdt.testing.fake_cuda.mutants import OPERATORS, DeviceMutant, device_mutants
from fpdt.testing.fake_cuda.oracle import OrderError
from fpdt.testing.fake_cuda.targets import TARGETS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fpdt.testing.fake_cuda.mutate")
    parser.add_argument("plans", nargs="+", type=Path)
    parser.add_argument("--sample", type=int, help="mutants of each operator; default: all")
    args = parser.parse_args()
    plans = [load_plan(path) for path in args.plans]
    for target in TARGETS:
        target.try_module(target.module, plans)
    mutants = device_mutants()
    for verdict in stale_equivalents(mutants):
        print(json.dumps(verdict), flush=True)
    for mutant in mutants if args.sample is None else sample(mutants, args.sample):
        print(json.dumps(judge(mutant, plans)), flush=True)


def judge(mutant: DeviceMutant, plans: Sequence[Plan]) -> dict[str, Any]:
    """What becomes of a mutant."""
    fate, detail = _fate(mutant, plans)
    reason = EQUIVALENT.get((mutant.function, mutant.what))
    if fate == "survived" and reason is not None:
        fate, detail = "equal", reason
    elif reason is not None:
        fate, detail = "survived", f"listed as equal, and it is not: {detail}"
    return {"operator": mutant.operator, "what": f"{mutant.function}: {mutant.what}", "fate": fate, "detail": detail}


def stale_equivalents(mutants: Sequence[DeviceMutant]) -> list[dict[str, Any]]:
    """What is listed as equal and is no longer made."""
    known = {(mutant.function, mutant.what) for mutant in mutants}
    stale = [(function, what) for function, what in EQUIVALENT if (function, what) not in known]
    detail = "listed as equal, and there is no such mutant any more"
    return [{"operator": "none", "what": f"{f}: {w}", "fate": "survived", "detail": detail} for f, w in stale]


def sample(mutants: Sequence[DeviceMutant], per_operator: int, seed: int = 11) -> list[DeviceMutant]:
    drawn = random.Random(seed)
    by_operator = [[mutant for mutant in mutants if mutant.operator == operator] for operator in OPERATORS]
    return [mutant for group in by_operator for mutant in drawn.sample(group, min(per_operator, len(group)))]


def _fate(mutant: DeviceMutant, plans: Sequence[Plan]) -> tuple[str, str]:
    try:
        mutant.target.try_module(mutant.build(), plans)
    except OrderError as error:
        return "changed", str(error)
    except Exception as error:  # Whatever a broken runtime raises.
        return "refused", f"{type(error).__name__}: {error}"
    return "survived", "nothing of it was noticed"


if __name__ == "__main__":
    main()
