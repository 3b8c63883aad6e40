"""Model families and the bindings through which op handlers use a Hugging Face model."""

from fpdt.models.base import EngineBinding, Family, Kernels, LayerBinding, Rotary, UnsupportedModelError
from fpdt.models.bind import bind_engine, bind_layer, check_complete
from fpdt.models.register import FAMILIES, family_named

__all__ = [
    "FAMILIES",
    "EngineBinding",
    "Family",
    "Kernels",
    "LayerBinding",
    "Rotary",
    "UnsupportedModelError",
    "bind_engine",
    "bind_layer",
    "check_complete",
    "family_named",
]
