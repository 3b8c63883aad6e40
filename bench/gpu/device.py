"""The two devices that steps run on. Nothing else of bench/gpu asks which one it is."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor


class Device(Protocol):
    @property
    def torch(self) -> torch.device: ...

    def synchronize(self) -> None: ...

    def sleep(self, cycles: int) -> None:
        """Keeps the current stream busy."""

    def stream(self, priority: int) -> Any: ...

    def use(self, stream: Any) -> AbstractContextManager[Any]: ...

    def event(self) -> Any:
        """With `record` and `wait`, of the current stream, and `synchronize`."""

    def memory(self) -> dict[str, int]:
        """Of the caching allocator and of the device; empty where there is none."""

    def reset_memory(self) -> None:
        """Gives cached memory back and begins peaks anew."""

    def register(self, memory: Tensor) -> int:
        """Page-locks host memory; 0, or the driver's error."""

    def unregister(self, memory: Tensor) -> None: ...

    def lend_streams(self, accelerator: Any) -> None:
        """Gives DeepSpeed's accelerator streams where it has none."""

    def facts(self) -> dict[str, Any]: ...


class CudaDevice:
    def __init__(self) -> None:
        self.torch = torch.device("cuda", 0)
        torch.cuda.set_device(0)

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def sleep(self, cycles: int) -> None:
        torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]

    def stream(self, priority: int) -> Any:
        return torch.cuda.Stream(priority=priority)  # type: ignore[no-untyped-call]

    def use(self, stream: Any) -> AbstractContextManager[Any]:
        return torch.cuda.stream(stream)

    def event(self) -> Any:
        return torch.cuda.Event()  # type: ignore[no-untyped-call]

    def memory(self) -> dict[str, int]:
        free, total = torch.cuda.mem_get_info()
        stats = torch.cuda.memory_stats()
        return {
            "allocatedPeakBytes": torch.cuda.max_memory_allocated(),
            "reservedPeakBytes": torch.cuda.max_memory_reserved(),
            "allocRetries": int(stats.get("num_alloc_retries", 0)),
            "freeBytes": free,
            "totalBytes": total,
        }

    def reset_memory(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def register(self, memory: Tensor) -> int:
        return int(_cudart().cudaHostRegister(memory.data_ptr(), memory.numel(), 0))

    def unregister(self, memory: Tensor) -> None:
        _cudart().cudaHostUnregister(memory.data_ptr())

    def lend_streams(self, accelerator: Any) -> None:
        """It has its own."""

    def facts(self) -> dict[str, Any]:
        properties = torch.cuda.get_device_properties(0)
        return {
            "hardware": properties.name,
            "hbmBytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "driver": _said("nvidia-smi", "--query-gpu=driver_version,pcie.link.gen.current,clocks.sm", "--format=csv"),
        }


class CpuDevice:
    """Stands in for a GPU: streams are none, sleeping is short, memory is locked by being touched."""

    def __init__(self) -> None:
        from gpu import stand_ins

        self.torch = torch.device("cpu")
        self._stand_ins = stand_ins
        stand_ins.install()

    def synchronize(self) -> None:
        """Nothing of it is asynchronous."""

    def sleep(self, cycles: int) -> None:
        time.sleep(cycles * 1e-9)

    def stream(self, priority: int) -> Any:
        return priority

    def use(self, stream: Any) -> AbstractContextManager[Any]:
        return nullcontext(stream)

    def event(self) -> Any:
        return _HostEvent()

    def memory(self) -> dict[str, int]:
        return {}

    def reset_memory(self) -> None:
        """The CPU's allocator keeps no peak."""

    def register(self, memory: Tensor) -> int:
        memory[::4096] = 1
        return 0

    def unregister(self, memory: Tensor) -> None:
        """Nothing is held."""

    def lend_streams(self, accelerator: Any) -> None:
        self._stand_ins.lend_streams(accelerator)

    def facts(self) -> dict[str, Any]:
        return {"hardware": f"{os.cpu_count()} CPUs, a dry run"}


class _HostEvent:
    def record(self) -> None: ...

    def wait(self) -> None: ...

    def synchronize(self) -> None: ...


DEVICES: dict[str, Callable[[], Device]] = {"cuda": CudaDevice, "cpu": CpuDevice}


def open_device(name: str) -> Device:
    return DEVICES[name]()


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()
    except OSError as error:
        return str(error)
