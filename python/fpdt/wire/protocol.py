"""Control protocol between the controller and its ranks.

Twin of src/bridge/protocol.ts: the same names, the same strictness. Both sides read test/fixtures/wire, and a test
compares these models with schemas/message.json. Imports nothing heavy: a rank says hello before it imports torch.
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fpdt.wire.options import (
    SAFE_INTEGER,
    CopyMode,
    Count,
    NonFinitePolicy,
    Positive,
    RunOptions,
    SavePolicy,
    Wire,
)

__all__ = ["CopyMode", "Count", "NonFinitePolicy", "RunOptions", "SavePolicy", "Wire"]

Version = Literal[2]
PROTOCOL_VERSION: Version = 2
SUPPORTED_PROTOCOLS = (2, 2)

Pid = Annotated[int, Field(gt=0, le=SAFE_INTEGER)]
Seconds = Annotated[float, Field(ge=0)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Phase = Literal["starting", "waiting", "loading", "stepping", "evaluating", "saving", "exporting", "closing"]


class ProtocolError(Exception):
    """A frame that is not a message of this protocol version."""


class FrameDescriptor(Wire):
    """`dtype` is that of a column's elements, `bytes` what travels: a column is deflated."""

    name: str
    dtype: Literal["json", "uint8", "int16", "uint16", "int32", "int64"]
    bytes: Count


class KindTime(Wire):
    count: Count
    seconds: Seconds


class Hello(Wire):
    protocol: tuple[Count, Count]
    version: str
    pid: Pid
    python: str
    capabilities: list[str]


class Plan(Wire):
    digest: Digest
    options: RunOptions
    frames: list[FrameDescriptor]


class PlanAccepted(Wire):
    digest: Digest


class Ready(Wire):
    digest: Digest
    device: str
    versions: dict[str, str]
    kernels: dict[str, str]
    seconds: Seconds
    pool_bytes: dict[str, Count]
    communicator_bytes: Count | None
    next_step: Count
    resumed: str | None
    remarks: list[str]


class RunSteps(Wire):
    digest: Digest
    from_: Count = Field(alias="from")
    to: Count


class StepDone(Wire):
    step: Count
    loss: float | None
    learning_rate: float | None
    gradient_norm: Annotated[float, Field(ge=0)] | None
    seconds: Seconds
    num_tokens: Count
    loss_scale: Annotated[float, Field(gt=0)]
    skipped: bool
    pool_bytes: dict[str, Count]
    memory_measured: bool
    copied_bytes: dict[str, Count]
    by_kind: dict[str, KindTime]
    idle_seconds: Seconds
    ops_timed: bool
    non_finite: list[str]
    non_finite_place: str | None


class SaveCheckpoint(Wire):
    digest: Digest
    step: Count
    wait: bool


class Checkpointed(Wire):
    digest: Digest
    step: Count
    folder: str
    bytes: Count
    seconds: Seconds
    blocked_seconds: Seconds
    problem: str | None


class Stop(Wire):
    reason: str


class Stopped(Wire):
    next_step: Count


class Evaluate(Wire):
    digest: Digest
    step: Count


class Evaluated(Wire):
    digest: Digest
    step: Count
    loss: float | None
    num_tokens: Positive
    num_sequences: Positive
    seconds: Seconds
    non_finite: list[str]


class ExportModel(Wire):
    digest: Digest


class Exported(Wire):
    digest: Digest
    folder: str
    num_weights: Count
    bytes: Count
    seconds: Seconds


class Shutdown(Wire):
    reason: str


class Bye(Wire):
    num_steps: Count


class Ping(Wire):
    stacks: bool


class Pong(Wire):
    phase: Phase
    step: Count | None
    since_us: Count


class Abort(Wire):
    reason: str


class Error(Wire):
    kind: str
    message: str
    traceback: str | None
    hint: str | None
    phase: Phase
    step: Count | None


BODIES: dict[str, type[Wire]] = {
    "hello": Hello,
    "plan": Plan,
    "planAccepted": PlanAccepted,
    "ready": Ready,
    "runSteps": RunSteps,
    "stepDone": StepDone,
    "saveCheckpoint": SaveCheckpoint,
    "checkpointed": Checkpointed,
    "stop": Stop,
    "stopped": Stopped,
    "evaluate": Evaluate,
    "evaluated": Evaluated,
    "exportModel": ExportModel,
    "exported": Exported,
    "shutdown": Shutdown,
    "bye": Bye,
    "ping": Ping,
    "pong": Pong,
    "abort": Abort,
    "error": Error,
}
TYPES: dict[type[Wire], str] = {body: name for name, body in BODIES.items()}


BodyT_co = TypeVar("BodyT_co", bound=Wire, covariant=True)


class Envelope(BaseModel, Generic[BodyT_co]):
    """One message. `corr` is the id of the message it answers; `ts_us` counts from the Unix epoch."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    v: Version
    id: Name
    run: Name
    rank: Count
    incarnation: Count
    type: str
    corr: str | None
    seq: Count
    ts_us: Count
    body: BodyT_co


Message = Envelope[Wire]


class _Outer(BaseModel):
    """Fields every message has; enough to tell an unknown type from a malformed message."""

    model_config = ConfigDict(strict=True, extra="ignore")

    v: int
    type: str


_ENVELOPES: dict[str, type[Envelope[Any]]] = {
    name: Envelope[body]  # type: ignore[valid-type]
    for name, body in BODIES.items()
}


def parse(frame: bytes) -> Message | None:
    """The message in frame 0, or None when its type is unknown (a newer peer's).

    Raises ProtocolError for anything that is not a message of this version: wrong version, missing or unknown field.
    """
    try:
        outer = _Outer.model_validate_json(frame)
        if outer.v != PROTOCOL_VERSION:
            raise ProtocolError(f"protocol version {outer.v}, expected {PROTOCOL_VERSION}")
        if outer.type not in _ENVELOPES:
            return None
        return _ENVELOPES[outer.type].model_validate_json(frame, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ProtocolError(str(error)) from error


def make(body: Wire, *, run: str, rank: int, incarnation: int, seq: int, corr: str | None = None) -> bytes:
    """Frame 0 of a message with this body."""
    name = TYPES[type(body)]
    message = _ENVELOPES[name](
        v=PROTOCOL_VERSION,
        id=uuid.uuid4().hex,
        run=run,
        rank=rank,
        incarnation=incarnation,
        type=name,
        corr=corr,
        seq=seq,
        ts_us=time.time_ns() // 1000,
        body=body,
    )
    return message.model_dump_json(by_alias=True).encode()
