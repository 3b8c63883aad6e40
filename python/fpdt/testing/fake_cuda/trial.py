"""What a CUDA runtime must do on a made-up device, all of it: the trial that a broken one fails."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from fpdt.devices.file_pool import FilePoolError, Ticket
from fpdt.errors import ArenaError
from fpdt.measure.loops import linked_loop
from fpdt.plan import Plan
from fpdt.run.arena import Arena, mapped_arena
from fpdt.run.runtime import COMPUTE
from fpdt.testing.fake_cuda.device import WORK_SECONDS, Clock, Device, Stream
from fpdt.testing.fake_cuda.files import clock_of
from fpdt.testing.fake_cuda.install import made_up
from fpdt.testing.fake_cuda.oracle import OrderError, require
from fpdt.testing.fake_cuda.pinned import PinnedRanges
from fpdt.testing.fake_cuda.sections import made_up_call
from fpdt.testing.fake_cuda.watch import watch

STREAMS = ("compute", "comm", "h2d", "d2h")
WITH_FILE = ("compute", "comm", "h2d", "read", "write", "d2h")
IN_FILE = frozenset({3, 4})


def try_runtime(module: ModuleType, plans: Sequence[Plan], seeds: Sequence[int]) -> None:
    """Raises OrderError for what the runtime of `module` does not order, and whatever else it raises."""
    for check in CHECKS:
        check(module)
    for seed in seeds:
        for plan in plans:
            watch(plan, seed, module)


def _check_start(module: ModuleType) -> None:
    """Arenas in host memory are page-locked as they are; where one cannot be, there is no runtime."""
    arenas = {name: mapped_arena(name, size) for name, size in (("a", 8192), ("none", 0), ("b", 4096))}
    locked = {arena.tensor.data_ptr(): arena.num_bytes for arena in arenas.values() if arena.num_bytes}
    ranges = PinnedRanges()
    with made_up(Device(is_lazy=True), module, ranges):
        elsewhere = Arena("elsewhere", torch.empty(4096, dtype=torch.uint8, device="meta"))
        runtime = module.CudaRuntime({**arenas, "elsewhere": elsewhere}, {}, STREAMS, frozenset(), None, 1)
        require(ranges.ranges == locked, "page-locked ranges are not the arenas of the host")
        require(runtime.device == torch.device("cuda", 1), "another device")
        priorities = [stream.priority for stream in runtime._streams]
        require(priorities == [0, -1, 0, 0], "exchanges wait for the blocks of long kernels")
        runtime.close()
        require(ranges.ranges == {} and ranges.pending_error == 0, "page-locked memory is not given back as it came")
    few = PinnedRanges(num_allowed=1)
    with made_up(Device(is_lazy=True), module, few):
        try:
            module.CudaRuntime(arenas, {}, STREAMS, frozenset())
        except ArenaError as error:
            require("4096 bytes" in str(error) and "code 2" in str(error), f"an error that says nothing: {error}")
            require(few.ranges == {}, "memory stays page-locked after an error")
            require(few.pending_error == 0, "the next launch reports the error of a registration")
        else:
            raise OrderError("memory that cannot be page-locked is used all the same")


def _check_marks(module: ModuleType) -> None:
    device = Device(is_lazy=True)
    with made_up(device, module):
        runtime = module.CudaRuntime({}, {}, STREAMS, frozenset())
        device.current = Stream(device)
        first = runtime.mark()
        device.launch(lambda: None)
        second = runtime.mark()
        require(not runtime.is_reached(first) and not runtime.is_reached(second), "a mark is reached too early")
        runtime.await_mark(second)
        require(runtime.is_reached(second) is True, "a mark that was waited for is not reached")
        require(runtime.seconds_between(first, second) == WORK_SECONDS, "another time between marks")
        require(runtime.remark(first) is first and not runtime.is_reached(first), "an old mark is not used anew")
        runtime.synchronize()
        require(runtime.is_reached(first), "synchronize does not wait")
        # Nobody asks to hear of its calls.
        linked_loop(runtime, [(lambda ctx: device.launch(lambda: None), (), COMPUTE)])()


def _check_run_ahead(module: ModuleType) -> None:
    """The host is at most two turns ahead when it leaves one, and never waits for the last."""
    device = Device(is_lazy=True)
    with made_up(device, module):
        runtime = module.CudaRuntime({}, {}, STREAMS, frozenset())
        for turn in range(6):
            runtime.begin_turn()
            _worked(device.current)
            runtime.end_turn()
            require(device.host[device.current.number] == turn, "a host too far ahead, or held back")


def _check_entries(module: ModuleType) -> None:
    """A stream waits for those that its mask names, and for no other."""
    for masked in range(len(STREAMS)):
        for named in range(len(STREAMS)):
            device = Device(is_lazy=True)
            with made_up(device, module):
                runtime = module.CudaRuntime({}, {}, STREAMS, frozenset())
                before = [_worked(stream) for stream in runtime._streams]
                masks = tuple(1 << named if place == masked else 0 for place in range(len(STREAMS)))
                made_up_call(runtime, [], masks)()
                for place, stream in enumerate(runtime._streams):
                    expected = before[place] | (before[named] if place == masked else Clock())
                    require(stream.clock == expected, f"{STREAMS[place]} and a mask of {STREAMS[masked]}")


def _check_joins(module: ModuleType) -> None:
    """The stream that is the caller's now waits for all, also for that which it had before."""
    for act in ("join", "abandon"):
        device = Device(is_lazy=True)
        with made_up(device, module):
            runtime = module.CudaRuntime({}, {}, STREAMS, frozenset())
            device.current = Stream(device)
            works = [_worked(stream) for stream in (*runtime._streams, device.current)]
            getattr(runtime, act)()
            require(all(work <= device.current.clock for work in works), f"{act} leaves work behind")


def _check_waits(module: ModuleType) -> None:
    """Ops of one stream are in order by themselves; an event that two wait for is recorded once."""
    device = Device(is_lazy=True)
    with made_up(device, module):
        runtime = module.CudaRuntime({}, {}, STREAMS, frozenset())

        def launch(ctx: Any) -> None:
            device.launch(lambda: None)

        run = made_up_call(
            runtime, [(launch, 0, ()), (launch, 0, (0,)), (launch, 1, (0,)), (launch, 2, (0,))], (0,) * 4
        )
        for _ in range(2):
            device.calls.clear()
            run()
            require(device.calls["wait"] == 2 and device.calls["record"] == 2 * 4 + 1, "a wait too many, or too few")


def _check_tickets(module: ModuleType) -> None:
    """A file's thread waits for the streams of what its transfer waits for, or its mask names, and for no other."""
    device = Device(is_lazy=True)
    with made_up(device, module):
        runtime = module.CudaRuntime({}, {}, WITH_FILE, IN_FILE)
        streams = runtime._streams
        before = {place: _worked(stream) for place, stream in enumerate(streams) if stream is not None}
        found: list[Clock] = []

        def launch(ctx: Any) -> None:
            _worked(device.current)

        def hand_over(ctx: Any) -> None:
            clock = Clock()
            for ticket in runtime._before_transfer(ctx):
                clock |= clock_of(ticket)
            found.append(clock)

        ops: list[Any] = [(launch, place, ()) for place in (0, 1, 2)]
        ops += [(hand_over, 3, (0, 2)), (hand_over, 3, (1,)), (hand_over, 4, (2,))]
        made_up_call(runtime, ops, (0, 0, 0, 0b100000, 0b000011, 0))()
        require(found[0] == streams[0].clock | streams[2].clock | before[5], "a transfer's waits and mask")
        require(found[1] == streams[1].clock, "a transfer that is not its stream's first")
        require(found[2] == streams[0].clock | streams[1].clock | streams[2].clock, "another file stream's")
        require(device.current is streams[0], "a transfer makes a stream current")


def _check_failed_transfers(module: ModuleType) -> None:
    """The error of a transfer is raised where it is waited for, and at the end of a turn; not after another error."""
    for act in ("end_turn", "join", "synchronize", "abandon"):
        with made_up(Device(is_lazy=True), module):
            runtime = module.CudaRuntime({}, {}, STREAMS, frozenset())
            ticket = Ticket()
            ticket._finish(FilePoolError("made up"))
            runtime._transfers.append(ticket)
            try:
                getattr(runtime, act)()
            except FilePoolError:
                require(act != "abandon", "an error hides the one before it")
            else:
                require(act == "abandon", f"{act} tells nothing of a failed transfer")
            require(not runtime._transfers, f"{act} leaves a transfer")


CHECKS = (
    _check_start,
    _check_marks,
    _check_run_ahead,
    _check_entries,
    _check_joins,
    _check_waits,
    _check_tickets,
    _check_failed_transfers,
)


def _worked(stream: Stream) -> Clock:
    stream.queue_work(lambda: None)
    return stream.clock.copy()
