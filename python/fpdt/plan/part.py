"""What the strict models of a plan's JSON have in common: camelCase there, snake_case here."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
NAMES = {"alias_generator": to_camel, "validate_by_name": True, "validate_by_alias": True}


class Part(BaseModel):
    """A part of the header that the worker knows in full."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, **NAMES)  # type: ignore[typeddict-item]


RECORD = ConfigDict(strict=True, extra="forbid", **NAMES)  # type: ignore[typeddict-item]
"""Of the parts that are dataclasses, so that tests may make them by position."""


class Spec(BaseModel):
    """A part of which the worker reads some fields; the others are kept as they are."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False, **NAMES)  # type: ignore[typeddict-item]
