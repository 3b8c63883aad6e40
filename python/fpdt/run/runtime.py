"""The one object that owns a device: its arenas, files, streams, events, clock and collectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from fpdt.errors import FpdtError, PlanError
from fpdt.plan import Plan
from fpdt.run.arena import Arena
from fpdt.run.context import Bound, Frame, OpContext
from fpdt.run.files import FileSlice

if TYPE_CHECKING:
    from fpdt.devices.file_pool import FilePool, Ticket
    from fpdt.measure.timing import Recorder
    from fpdt.run.link import LinkedSection
    from fpdt.wire.options import CopyMode

Gate = tuple[int, ...] | None
"""Numbers of transfers, see Frame.tickets, that an op waits for on the host; None for nearly all ops."""
COMPUTE, COMM = 0, 1
"""Places of these streams in every plan's list."""


@dataclass(frozen=True, slots=True)
class LinkedCall:
    """One call of the program. `waits[s]`: bit t is set where stream s waits for what was queued on t before."""

    section: LinkedSection
    args: tuple[int, ...]
    layer: int | None
    waits: tuple[int, ...]


class Runtime(ABC):
    """Runs the ops of calls on named streams. Handlers see `device`, `copy` and `all_to_all`; the executor the rest.

    Within a turn the host never waits for the device, files apart. Each stream keeps its order; ops start after those
    they wait for, and after what their call's entry mask names; side streams go on when the turn has ended.
    """

    def __init__(
        self,
        device: torch.device,
        arenas: Mapping[str, Arena],
        files: Mapping[str, FilePool],
        streams: tuple[str, ...],
        group: dist.ProcessGroup | None,
        copy_mode: CopyMode,
    ) -> None:
        """`copy_mode`: who launches copies, and when."""
        self.device = device
        self.arenas = arenas
        self.files = files
        self.streams = streams
        self.begin_call: Callable[[LinkedCall, Frame], None] | None = None
        """Called with every call and its frame before its first op; debug mode sets it."""
        self.copy_mode = copy_mode
        self.remarks: tuple[str, ...] = ()
        """What a run says of its device once, at its start."""
        self._places = {name: place for place, name in enumerate(streams)}
        self._group = group
        self._copied_bytes = dict.fromkeys(streams[2:], 0)
        self._tickets: dict[int, Ticket] = {}
        """The last transfer of each stream; a stream's transfers end in their order."""
        self._transfers: deque[Ticket] = deque()
        """Those not seen to have ended."""
        self._blocks: dict[tuple[int, int], Tensor] = {}

    @abstractmethod
    def begin_turn(self) -> None: ...

    @abstractmethod
    def run_call(self, call: LinkedCall, bound: Bound, recorder: Recorder) -> None:
        """Queue all ops of a call. An error of a handler is raised as it is, with a note that names the op."""

    def _open(self, call: LinkedCall, bound: Bound, frame: Frame) -> list[Gate]:
        """Makes views and frame those of a call; what its ops wait for on the host."""
        call.section.bind(call.args)
        set_frame(frame, call, bound)
        if self.begin_call is not None:
            self.begin_call(call, frame)
        frame.entry = call.waits
        return masked_gates(call, self._tickets, frame)

    @abstractmethod
    def end_turn(self) -> None:
        """What the host does next comes after every compute op so far, and after the exchanges."""

    @abstractmethod
    def before_gather(self) -> None:
        """A collective of ZeRO's comes next: the exchanges before it come first on every rank."""

    @abstractmethod
    def before_release(self) -> None:
        """Weights go next: ops that use them come first."""

    @abstractmethod
    def join(self) -> None:
        """What the host does next comes after everything queued so far."""

    @abstractmethod
    def abandon(self) -> None:
        """Forget what was queued, after an error."""

    @abstractmethod
    def make_recorder(self, kinds: tuple[str, ...], record_layers: int) -> Recorder: ...

    @abstractmethod
    def mark(self) -> Any:
        """A point in the time of the current stream, for `seconds_between`."""

    @abstractmethod
    def remark(self, mark: Any, stream: Any = None) -> Any:
        """The same, using an old mark anew where marks are costly. `stream`: the current one, for who knows it."""

    @abstractmethod
    def is_reached(self, mark: Any) -> bool: ...

    @abstractmethod
    def await_mark(self, mark: Any) -> None: ...

    @abstractmethod
    def seconds_between(self, start: Any, end: Any) -> float:
        """Seconds from one mark to another; both must have been reached, see `synchronize`."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for everything started so far, transfers included."""

    @abstractmethod
    def device_peak_bytes(self) -> int | None:
        """The device allocator's own peak since the last `reset_device_peak`, arena included; None if it keeps none."""

    @abstractmethod
    def reset_device_peak(self) -> None: ...

    def close(self) -> None:
        """Give back what the device registered and close the files; the arenas must not be used afterwards."""
        for pool in self.files.values():
            pool.close()
        self._drop_transfers()

    def copy(self, dst: Tensor | FileSlice, src: Tensor | FileSlice, ctx: OpContext) -> None:
        """dst = src on the op's stream, whose bytes are counted. A copy with a file only starts: see Frame.tickets."""
        if isinstance(dst, Tensor) and isinstance(src, Tensor):
            dst.copy_(src, non_blocking=True)
            size = dst.numel() * dst.element_size()
        else:
            size = self._transfer(dst, src, ctx)
        self._copied_bytes[ctx.op.stream] += size

    def skip_copy(self, dst: Tensor | FileSlice, src: Tensor | FileSlice, ctx: OpContext) -> None:
        """A copy with a file that is left out: a ticket in its place, for who waits for it."""
        if isinstance(dst, FileSlice):
            self._note_transfer(dst.pool.pass_write(self._before_transfer(ctx)), ctx)
        elif isinstance(src, FileSlice):
            self._note_transfer(src.pool.pass_read(self._before_transfer(ctx)), ctx)

    def all_to_all(self, out: Tensor, in_: Tensor) -> None:
        """Equal blocks of contiguous `in_` to the ranks of the sequence group, theirs into `out`; alone, a plain copy.

        The block for, and from, rank r is the r-th part of the flattened tensor.
        """
        if self._group is None or self._group.size() == 1:
            out.copy_(in_)
        else:
            dist.all_to_all_single(_as_bytes(out), _as_bytes(in_), group=self._group)

    def take_copied_bytes(self) -> dict[str, int]:
        """Bytes copied per stream since the last call."""
        taken, self._copied_bytes = self._copied_bytes, dict.fromkeys(self._copied_bytes, 0)
        return taken

    def _transfer(self, dst: Tensor | FileSlice, src: Tensor | FileSlice, ctx: OpContext) -> int:
        if isinstance(dst, FileSlice) and isinstance(src, Tensor):
            ticket = dst.pool.write(dst.offset, self._block(src, dst), self._before_transfer(ctx))
            size = dst.payload_bytes
        elif isinstance(src, FileSlice) and isinstance(dst, Tensor):
            ticket = src.pool.read(src.offset, self._block(dst, src), self._before_transfer(ctx))
            size = src.payload_bytes
        else:
            raise PlanError(f"{ctx.describe()} copies from file to file", "plan again")
        self._note_transfer(ticket, ctx)
        return size

    def _note_transfer(self, ticket: Ticket, ctx: OpContext) -> None:
        ctx.frame.tickets[ctx.op.id] = ticket
        self._tickets[self._places[ctx.op.stream]] = ticket
        self._transfers.append(ticket)

    def _before_transfer(self, ctx: OpContext) -> Sequence[Ticket]:
        """What the thread of a file must wait for by itself before it touches the memory of this transfer."""
        numbers = ctx.frame.afters.get(ctx.op.id, ())
        return [ctx.frame.tickets[number] for number in numbers]

    def _block(self, view: Tensor, place: FileSlice) -> Tensor:
        """The bytes of memory from a view's first on, as many as an instance in the file has."""
        start = int(view.storage_offset()) * view.element_size()
        key = (view.untyped_storage()._cdata, start)
        block = self._blocks.get(key)
        if block is None or block.numel() != place.num_bytes:
            block = torch.empty(0, dtype=torch.uint8).set_(view.untyped_storage(), start, (place.num_bytes,), (1,))
            self._blocks[key] = block
        return block

    def _check_transfers(self) -> None:
        """Raises the error of a transfer that has failed."""
        while self._transfers and self._transfers[0].done():
            self._transfers.popleft().wait()

    def _await_transfers(self) -> None:
        while self._transfers:
            self._transfers.popleft().wait()

    def _drop_transfers(self) -> None:
        """Waits for them to end, whatever comes of it: their memory is about to be used again."""
        while self._transfers:
            try:
                self._transfers.popleft().wait()
            except FpdtError:
                continue
        self._tickets.clear()


def set_frame(frame: Frame, call: LinkedCall, bound: Bound) -> None:
    """Makes a section's frame that of a call."""
    frame.args = call.args
    frame.engine = bound.engine
    frame.layer_number = call.layer
    frame.layer = None if call.layer is None else bound.layers[call.layer]


def gate_number(stream: int) -> int:
    """Where in Frame.tickets the last transfer is that a stream had before the call."""
    return -1 - stream


def masked_gates(call: LinkedCall, tickets: Mapping[int, Ticket], frame: Frame) -> list[Gate]:
    """The section's gates, and those that the entry mask adds where transfers of earlier calls are under way.

    A transfer that waits for others has no gate: its own thread waits, see Frame.afters.
    """
    section = call.section
    gates, frame.afters = section.gates, section.afters
    running = {stream: ticket for stream, ticket in tickets.items() if not ticket.done()}
    for stream, waits in enumerate(call.waits) if running else ():
        first = section.first_ops[stream]
        mine = tuple(gate_number(other) for other in running if waits >> other & 1)
        if first < 0 or not mine:
            continue
        if first in section.transfers:
            frame.afters = {**frame.afters, first: (*mine, *frame.afters.get(first, ()))}
            continue
        if gates is section.gates:
            gates = list(gates)
        gates[first] = (*mine, *(gates[first] or ()))
    for stream, ticket in running.items():
        frame.tickets[gate_number(stream)] = ticket
    return gates


def await_gate(gate: tuple[int, ...], frame: Frame) -> None:
    """Waits on the host for transfers that an op needs. Raises the error of one that failed."""
    tickets = frame.tickets
    for number in gate:
        tickets[number].wait()


def arena_bytes(plan: Plan) -> dict[str, tuple[str, int]]:
    """(kind, bytes) of every pool of a plan by its name."""
    return {pool.name: (pool.kind, pool.bytes) for pool in plan.header.pools}


def _as_bytes(tensor: Tensor) -> Tensor:
    """Backends differ in the dtypes they know; all move bytes."""
    return tensor.view(-1).view(torch.uint8)
