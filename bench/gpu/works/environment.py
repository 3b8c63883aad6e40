"""What machine this is, whether every package is there in its version, and one product."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import resource
from pathlib import Path
from typing import Any

import torch

from gpu.context import Context
from gpu.seeded import seeded
from gpu.sketch import Sketches, sketch

IMPORTS = ("deepspeed", "transformers", "zmq", "pydantic", "fpdt.run.session")
PRODUCT_SIZE = 256
PRODUCT_BOUND = 0.01


def run(context: Context) -> None:
    context.lines.add("environment", **context.device.facts(), **host_facts(), commit=commit_of(context.staging))
    check_packages(context)
    for name in IMPORTS:
        try:
            importlib.import_module(name)
        except Exception as error:
            context.lines.check(f"import {name}", False, error=f"{type(error).__name__}: {error}"[-2000:])
    context.compare("a product", "product", product(context.device.torch, torch.bfloat16), PRODUCT_BOUND)


def check_packages(context: Context) -> None:
    """Those that the worker needs and that a bare machine with PyTorch lacks; staging brought their wheels."""
    wanted = json.loads((context.staging / "manifest.json").read_text())["packages"]
    for name, version in wanted.items():
        found = version_of(name)
        context.lines.check(f"package {name}", found == version, wanted=version, found=found)


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def product(device: torch.device, dtype: torch.dtype) -> Sketches:
    a, b = (seeded(f"product/{name}", (PRODUCT_SIZE, PRODUCT_SIZE), device, dtype) for name in "ab")
    return {"product": sketch("product", a @ b)}


def host_facts() -> dict[str, Any]:
    names = ("torch", "deepspeed", "transformers", "pydantic", "pyzmq", "numpy")
    return {
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in names}},
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "memory": first_lines("/proc/meminfo", ("MemTotal", "MemAvailable", "Hugepagesize")),
        "transparentHugepages": text_of("/sys/kernel/mm/transparent_hugepage/enabled"),
        "shmemHugepages": text_of("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        "numaNodes": text_of("/sys/devices/system/node/online"),
        "lockedMemoryLimit": resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
    }


def commit_of(staging: Path) -> str:
    return str(json.loads((staging / "manifest.json").read_text())["commit"])


def text_of(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def first_lines(path: str, names: tuple[str, ...]) -> list[str]:
    return [line for line in (text_of(path) or "").splitlines() if line.startswith(names)]
