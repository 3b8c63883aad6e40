"""Kernels beside attention against their plain twins: a wrong one is refused before a run trains.

Each kernel that the plan names runs on what the plan asks of it, in the run's dtype; its plain twin runs on the same
values in that dtype and in fp64. fpdt/rounding.py says how far is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic.alias_generators import to_camel

from fpdt.errors import FpdtError
from fpdt.plan import Plan
from fpdt.plan.nouns import PLAIN, FusedKernels
from fpdt.rounding import Finding, finding
from fpdt.run.fused_cases import Case, Trial, cases_of


class KernelError(FpdtError):
    """A kernel beside attention that is wrong, or does not run here."""


def check_fused_kernels(plan: Plan, fused: FusedKernels, dtype: torch.dtype, device: torch.device) -> str | None:
    """A line that says how far the kernels were from their twins; None where all that have something to do are plain.

    Raises KernelError where that is too far.
    """
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    worst, names = Finding("", 0.0, 1.0), []
    for case in cases_of(plan):
        name = getattr(fused, case.kind)
        if name == "plain":
            continue
        names.append(f"{to_camel(case.kind)} {name}")
        try:
            findings = list(_findings(case, fused, dtype, device))
        except RuntimeError as error:
            raise _refusal(case.kind, name, chip, f"does not run: {error}") from error
        for found in findings:
            if not found.is_right:
                raise _refusal(case.kind, name, chip, f"is wrong: {_text(found)}")
            worst = max(worst, found, key=lambda one: one.share)
    if not names:
        return None
    return (
        f"kernels beside attention on {chip} agree with their plain twins ({', '.join(dict.fromkeys(names))}): "
        f"largest distance {worst.distance:.1e} in {worst.what}, {worst.tolerance:.1e} may be rounding"
    )


def _findings(case: Case, fused: FusedKernels, dtype: torch.dtype, device: torch.device) -> Iterator[Finding]:
    with torch.no_grad():
        exact = case.run(Trial(PLAIN, dtype, device, is_exact=True))
        rounded = case.run(Trial(PLAIN, dtype, device))
        found = case.run(Trial(fused, dtype, device))
    for what, values in found.items():
        yield finding(what, values, exact[what], rounded[what], values.dtype)


def _text(found: Finding) -> str:
    return f"{found.what} is {found.distance:.2e} from that of its plain twin, rounding explains {found.tolerance:.1e}"


def _refusal(kind: str, name: str, chip: str, what: str) -> KernelError:
    return KernelError(
        f"the kernel {name} for {to_camel(kind)} on {chip} {what}",
        f"plan with --kernels {to_camel(kind)}=plain, or change the version of PyTorch",
    )
