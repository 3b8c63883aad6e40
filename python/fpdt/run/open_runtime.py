"""The runtime that a run's options ask for, and the files of its pools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpdt.devices import open_files, plan_runtime
from fpdt.devices.file_pool import FilePool
from fpdt.errors import FpdtError
from fpdt.plan import Plan
from fpdt.run.communicators import Communicators
from fpdt.run.runtime import Runtime


def make_runtime(
    plan: Plan, options: Mapping[str, Any], communicators: Communicators, files: Mapping[str, FilePool]
) -> Runtime:
    """What executes the plan's ops on this rank. Raises FpdtError for options that exclude each other."""
    if options["poison"] and options["copy_mode"] == "native":
        raise FpdtError(
            "--poison watches ops that Python launches, and native copies are not", "give --copy-mode events"
        )
    return plan_runtime(
        plan,
        communicators.exchange,
        copy_mode=options["copy_mode"],
        seed=(options["seed"] or 0) + communicators.ranks.rank,
        device_index=communicators.ranks.local_rank,
        files=files,
    )


def open_run_files(plan: Plan, options: Mapping[str, Any]) -> Mapping[str, FilePool]:
    """Of the plan's pools those in files, by name."""
    folder = options.get("disk_folder")
    return open_files(plan.header.pools, None if folder is None else Path(folder), options.get("disk_direct"))
