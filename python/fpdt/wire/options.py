"""How a rank runs its plan, as the controller says it, and what all bodies of messages are made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

SAFE_INTEGER = 2**53 - 1

Count = Annotated[int, Field(ge=0, le=SAFE_INTEGER)]
Positive = Annotated[int, Field(gt=0, le=SAFE_INTEGER)]
CopyMode = Literal["eager", "lazy", "random", "threads", "events", "native"]
"""The last two are those of GPUs, see devices."""
NonFinitePolicy = Literal["stop", "skip"]
SavePolicy = Literal["stop", "continue"]


class Wire(BaseModel):
    """Strict and frozen; camelCase on the wire, snake_case in Python."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class DataOptions(Wire):
    tokenizer: str | None
    field: str | None
    weights_field: str | None
    dtype: Literal["int32", "uint16"] | None
    shuffle: bool | None
    seed: Count | None
    long_documents: Literal["refuse", "split", "truncate"] | None
    cache: str | None


class CheckpointOptions(Wire):
    folder: str
    every: Positive | None
    keep: Positive
    on_save_failure: SavePolicy


class ResumeOptions(Wire):
    newest: bool
    path: str | None


class EvaluationOptions(Wire):
    data: str
    sequences: Positive | None
    every: Positive | None


class RunOptions(Wire):
    data: str
    data_options: DataOptions | None
    weights: str | None
    export: str | None
    dump_grads: str | None
    copy_mode: CopyMode | None
    poison: bool
    seed: Count | None
    disk_folder: str | None
    disk_direct: bool | None
    record_layers: Count
    trace_steps: list[Count]
    trace_folder: str | None
    checkpoint: CheckpointOptions | None
    resume: ResumeOptions | None
    on_non_finite: NonFinitePolicy | None
    evaluation: EvaluationOptions | None
