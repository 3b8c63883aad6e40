"""The bindings through which op handlers use a Hugging Face model."""

from fpdt.models.base import EngineBinding, HeadBinding, Kernels, LayerBinding
from fpdt.models.bind import bind_engine, bind_layer, check_complete, decoder_layers, rotary_of

__all__ = [
    "EngineBinding",
    "HeadBinding",
    "Kernels",
    "LayerBinding",
    "bind_engine",
    "bind_layer",
    "check_complete",
    "decoder_layers",
    "rotary_of",
]
