"""What a CPU lacks of CUDA's: the aten ops of FlashAttention-2, cuDNN and products into fp32, and DeepSpeed's streams.

For dry runs.
"""

from __future__ import annotations

from typing import Any

from fpdt.testing.fake_cuda.products import half_products
from tests.fake_cudnn import cudnn_on_cpu
from tests.fake_flash import flash_on_cpu

_OPS = (flash_on_cpu(), cudnn_on_cpu(), half_products())


def install() -> None:
    """For the rest of the process."""
    for ops in _OPS:
        ops.__enter__()


def lend_streams(accelerator: Any) -> None:
    """DeepSpeed's fpdt_layer makes streams without asking whether the accelerator has any."""
    kind = type(accelerator)
    if accelerator.Stream is None:
        kind.Stream = Stream
        kind.default_stream = lambda self, device_index=None: Stream()


class Stream:
    def wait_stream(self, other: Stream) -> None: ...

    def synchronize(self) -> None: ...
