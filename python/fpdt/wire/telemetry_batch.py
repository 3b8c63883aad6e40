"""The telemetry message that a rank pushes: a batch of records that may be lost, numbered so that loss is visible.

Twin of src/bridge/telemetryBatch.ts, as protocol.py is of the messages; a test compares it with
schemas/telemetryBatch.json.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError

from fpdt.wire.protocol import Count, Phase, ProtocolError, Version, Wire


class OpRecord(Wire):
    """One executed op; microseconds since the start of its step on this rank."""

    kind: Literal["op"] = "op"
    step: Count
    section: str
    layer: Count
    op: Count
    op_kind: str
    stream: str
    start_us: Count
    duration_us: Count
    bytes: Count


class MemoryRecord(Wire):
    kind: Literal["memory"] = "memory"
    step: Count
    pool: str
    ts_us: Count
    bytes: Count


class PhaseRecord(Wire):
    kind: Literal["phase"] = "phase"
    phase: Phase
    step: Count | None
    ts_us: Count


Record = Annotated[OpRecord | MemoryRecord | PhaseRecord, Field(discriminator="kind")]


class TelemetryBatch(Wire):
    """`seq` numbers batches made, `dropped` counts records lost so far because the socket was full."""

    v: Version
    run: str
    rank: Count
    incarnation: Count
    seq: Count
    dropped: Count
    records: list[Record]


def parse_batch(frame: bytes) -> TelemetryBatch:
    """Raises ProtocolError for anything that is not a telemetry batch of this version."""
    try:
        return TelemetryBatch.model_validate_json(frame, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ProtocolError(str(error)) from error
