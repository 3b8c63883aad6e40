"""Environment variables that PyTorch and DeepSpeed read when they are imported: set before, where the user has not."""

from __future__ import annotations

import os

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


def prepare_imports(device: str) -> None:
    """For the device of a plan. Segments that grow leave no holes between what ops of different sizes make on a GPU."""
    os.environ.setdefault("DS_ACCELERATOR", device)
    if device == "cuda" and not any(name in os.environ for name in ALLOCATOR):
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
