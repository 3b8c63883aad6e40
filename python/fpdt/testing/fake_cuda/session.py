"""Whole steps of a plan on a made-up device: session, model, DeepSpeed and handlers are the worker's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from fpdt.devices import cuda, cuda_copies
from fpdt.devices.file_pool import FilePool
from fpdt.ops import HANDLERS
from fpdt.plan import Plan, decode
from fpdt.run import session
from fpdt.run.communicators import Communicators
from fpdt.run.runtime import Runtime
from fpdt.testing.fake_cuda.device import Device
from fpdt.testing.fake_cuda.driver import driven
from fpdt.testing.fake_cuda.files import made_up_files
from fpdt.testing.fake_cuda.install import made_up, make_runtime, queueing
from fpdt.testing.fake_cuda.pinned import PinnedRanges


@contextmanager
def sessions_on(
    device: Device, module: ModuleType = cuda, *, is_postponed: bool = True, is_native: bool = False
) -> Iterator[None]:
    """Sessions that are made and run inside are on the device, whatever their plan says.

    Unless `is_postponed`, ops run at once: the device is there for its streams, events and queues alone. `is_native`:
    the engine launches copies, and so no op has a time.
    """
    ranges = PinnedRanges()
    made: Any = SimpleNamespace(CudaRuntime=cuda_copies.CopyingCudaRuntime) if is_native else module

    def runtime(
        plan: Plan, options: Mapping[str, Any], communicators: Communicators, files: Mapping[str, FilePool]
    ) -> Runtime:
        del options
        return make_runtime(plan, device, files, communicators.exchange, made, is_attended=is_postponed)

    def files(plan: Plan, options: Mapping[str, Any]) -> Mapping[str, FilePool]:
        del options
        return made_up_files(plan.header.pools, device)

    with (
        made_up(device, module, ranges),
        driven(device, ranges),
        mock.patch.object(session, "samples_ops", lambda _: not is_native),
        mock.patch.object(session, "make_runtime", runtime),
        mock.patch.object(session, "open_run_files", files),
        mock.patch.object(session, "HANDLERS", queueing(HANDLERS, device) if is_postponed else HANDLERS),
        mock.patch.object(session, "decode", _on_cpu),
    ):
        yield


def _on_cpu(*frames: Any) -> Plan:
    """A plan, which may be for a GPU."""
    plan = decode(*frames)
    return dataclasses.replace(plan, header=plan.header.model_copy(update={"device": "cpu"}))
