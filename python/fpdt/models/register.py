"""Model families by name (plan.model.family); a new one is a line here."""

from __future__ import annotations

from collections.abc import Mapping

from fpdt.models.base import Family, UnsupportedModelError
from fpdt.models.llama import LlamaFamily

FAMILIES: Mapping[str, Family] = {"llama": LlamaFamily()}


def family_named(name: str) -> Family:
    """Raises UnsupportedModelError for a name that is not in FAMILIES."""
    if name not in FAMILIES:
        raise UnsupportedModelError(f"unknown model family '{name}', expected one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
