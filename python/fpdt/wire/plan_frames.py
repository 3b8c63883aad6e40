"""The frames of a plan message, looked at before anything heavy is imported."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fpdt.wire import protocol

PLAN_VERSION = 2
DEVICES = ("cpu", "cuda")
TEXT_FRAMES = [("header", "json"), ("prose", "json")]


@dataclass(frozen=True)
class PlanFrames:
    """A plan as it travels: JSON text of what is executed, JSON text of the rest, deflated columns by name."""

    header: bytes
    prose: bytes
    columns: Mapping[str, bytes]


class PlanRefusedError(Exception):
    """This worker cannot run the plan it was sent."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def check_plan(plan: protocol.Plan, frames: Sequence[bytes]) -> PlanFrames:
    """The frames by what they are. Raises PlanRefusedError before anything heavy is imported."""
    expected = [frame.bytes for frame in plan.frames]
    found = [len(frame) for frame in frames]
    if expected != found or [(frame.name, frame.dtype) for frame in plan.frames[:2]] != TEXT_FRAMES:
        raise PlanRefusedError(
            f"the plan message announces frames of {expected} bytes, header and prose first; received {found}",
            "send the plan again",
        )
    header, prose, *columns = frames
    digest = plan_digest(header, columns)
    if digest != plan.digest:
        raise PlanRefusedError(
            f"plan digest is {digest}, the controller says {plan.digest}",
            "plan again: the plan was changed after it was made",
        )
    check_header(json.loads(header))
    names = [frame.name for frame in plan.frames[2:]]
    return PlanFrames(header, prose, dict(zip(names, columns, strict=True)))


def plan_digest(header: bytes, columns: Sequence[bytes]) -> str:
    """SHA-256 over the header and the inflated columns. Raises PlanRefusedError for a column that was not deflated."""
    digest = hashlib.sha256(header)
    for column in columns:
        try:
            digest.update(zlib.decompress(column))
        except zlib.error as error:
            raise PlanRefusedError(
                f"a column of the plan cannot be inflated: {error}", "send the plan again"
            ) from error
    return digest.hexdigest()


def check_header(header: Mapping[str, Any]) -> None:
    """Refuse a plan of another version or for another kind of device; the session checks the rest."""
    if header.get("kind") != "executionPlan" or header.get("version") != PLAN_VERSION:
        raise PlanRefusedError(
            f"plan version {header.get('version')} of kind {header.get('kind')}, this worker runs {PLAN_VERSION}",
            "install the npm and the Python package in the same version",
        )
    device = header.get("device")
    if device not in DEVICES:
        raise PlanRefusedError(f"plan is for device {device!r}", f"this worker runs on {' or '.join(DEVICES)}")
