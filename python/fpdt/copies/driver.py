"""The functions of the CUDA driver that the copy engine calls, found where PyTorch finds them."""

from __future__ import annotations

import ctypes

from fpdt.copies.build import CopiesUnavailableError

DRIVER = "libcuda.so.1"
DRIVER_FUNCTIONS = (
    "cuDeviceGet",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemsetD32_v2",
    "cuStreamWaitValue32_v2",
    "cuStreamWriteValue32_v2",
    "cuMemcpyBatchAsync_v2",
    "cuStreamSynchronize",
    "cuGetErrorString",
)
"""In the order of DriverTable in native/cuda/cuda_driver.h."""


def driver_functions(path: str = DRIVER) -> tuple[int, ...]:
    """Their addresses. Raises CopiesUnavailableError where the driver is not there, or is too old."""
    try:
        driver = ctypes.CDLL(path)
    except OSError as error:
        raise CopiesUnavailableError(
            f"cannot load {path}: {error}", "install NVIDIA's driver; AMD's GPUs copy by events"
        ) from error
    missing = [name for name in DRIVER_FUNCTIONS if not hasattr(driver, name)]
    if missing:
        raise CopiesUnavailableError(
            f"the CUDA driver has no {', '.join(missing)}", "update it to release 580 (CUDA 13.0) or newer"
        )
    return tuple(ctypes.cast(getattr(driver, name), ctypes.c_void_p).value or 0 for name in DRIVER_FUNCTIONS)
