"""What a handler is given beside its views: the op, and what the call it belongs to is bound to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fpdt.errors import ScheduleError
from fpdt.plan import Op

if TYPE_CHECKING:
    from fpdt.devices.file_pool import Ticket
    from fpdt.models.base import EngineBinding, LayerBinding
    from fpdt.run.runtime import Runtime


class Weights(Protocol):
    """What a program needs of ZeRO: zero.LayerWeights."""

    def gather(self, layer: int) -> None:
        """Starts to make a layer's weights whole, until `release`; returns at once."""

    def acquire(self, layer: int) -> None:
        """Waits for what `gather` started; does nothing for other layers."""

    def release(self, layer: int) -> None: ...

    def abandon(self) -> None:
        """Gives back whatever is gathered, after an error."""

    def check_others(self, layer: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Bound:
    """The model that a plan's turns run against; made by the engine. `layers` by number."""

    layers: Sequence[LayerBinding]
    engine: EngineBinding
    weights: Weights
    optimizer_step: Callable[[], None]


class Frame:
    """One call as its ops see it. In eager mode and on CUDA a section has one frame, set anew for every call."""

    __slots__ = ("afters", "args", "engine", "entry", "layer", "layer_number", "runtime", "state", "tickets")

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.engine: EngineBinding | None = None
        self.layer: LayerBinding | None = None
        self.layer_number: int | None = None
        self.args: tuple[int, ...] = ()
        self.entry: tuple[int, ...] = ()
        self.tickets: dict[int, Ticket] = {}
        """Transfers with a file by the op that started them; below 0, see gate_number, the last of a stream before
        the call."""
        self.afters: Mapping[int, tuple[int, ...]] = {}
        """Of transfers that wait for others, by op: the tickets that their own thread waits for."""
        self.state: Any = None
        """What debug mode keeps of a call."""


class OpContext:
    """An op of a call. `layer` is the binding of the layer that the call names, which may not be the turn's."""

    __slots__ = ("frame", "op")

    def __init__(self, op: Op, frame: Frame) -> None:
        self.op = op
        self.frame = frame

    @property
    def runtime(self) -> Runtime:
        return self.frame.runtime

    @property
    def engine(self) -> EngineBinding:
        engine = self.frame.engine
        if engine is None:
            raise ScheduleError(f"op {self.op.id} {self.op.kind} ran without an engine binding")
        return engine

    @property
    def layer(self) -> LayerBinding:
        layer = self.frame.layer
        if layer is None:
            raise ScheduleError(f"op {self.op.id} {self.op.kind} needs a layer, its call names none")
        return layer

    def describe(self) -> str:
        """`op 3 attn of layerForward, layer 1: q[0:8) k#1[0:8)`; for errors."""
        section, op = self.op.section, self.op
        views = " ".join(map(section.access_text, op.accesses))
        where = "" if self.frame.layer_number is None else f", layer {self.frame.layer_number}"
        args = ", ".join(f"{name}={value}" for name, value in zip(section.params, self.frame.args, strict=False))
        return f"op {op.id} {op.kind} of {section.name}{f'({args})' if args else ''}{where}: {views}"


Handler = Callable[..., None]
"""`handler(ctx, *views)`: exactly the declared views, by the names of the op table. Each is a row range of an arena
buffer with its own version counter; tensors that a handler makes die in it; the op's stream is current while it runs.
"""
Handlers = Mapping[str, Handler]
