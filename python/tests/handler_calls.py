"""Calls op handlers on plain tensors, and simulates a sequence group by threads in one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from fpdt.models import EngineBinding, LayerBinding
from fpdt.ops import HANDLERS
from fpdt.plan import OP_KINDS, Attribute, Mask, Op, Range, Section
from fpdt.plan.sections import HeadLists
from fpdt.run.context import Frame, OpContext
from fpdt.run.runtime import Runtime

Result = TypeVar("Result")
Rank = TypeVar("Rank", bound="GroupRuntime")


class Group:
    """The mailbox of a simulated sequence group."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.sent: list[Tensor] = [torch.empty(0)] * size

    def ranks(self) -> list[GroupRuntime]:
        return [GroupRuntime(self, rank) for rank in range(len(self.sent))]

    def run(self, work: Callable[[GroupRuntime], Result]) -> list[Result]:
        """work(runtime) on every rank at once, results by rank."""
        return self.run_as(GroupRuntime, work)

    def run_as(self, kind: Callable[[Group, int], Rank], work: Callable[[Rank], Result]) -> list[Result]:
        """The same with runtimes of another kind."""
        results: dict[int, Result] = {}
        errors: list[BaseException] = []

        def guarded(runtime: Rank) -> None:
            try:
                results[runtime.rank] = work(runtime)
            except BaseException as error:
                errors.append(error)
                self.barrier.abort()

        runtimes = [kind(self, rank) for rank in range(len(self.sent))]
        threads = [threading.Thread(target=guarded, args=(runtime,)) for runtime in runtimes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [results[rank] for rank in range(len(self.sent))]


class GroupRuntime:
    """What handlers use of a Runtime."""

    def __init__(self, group: Group, rank: int) -> None:
        self.group = group
        self.rank = rank
        self.num_exchanges = 0

    def all_to_all(self, out: Tensor, in_: Tensor) -> None:
        self.num_exchanges += 1
        self.group.sent[self.rank] = in_
        self.group.barrier.wait()
        size = len(self.group.sent)
        for sender, message in enumerate(self.group.sent):
            out.view(size, -1)[sender].copy_(message.view(size, -1)[self.rank])
        self.group.barrier.wait()

    def copy(self, dst: Tensor, src: Tensor, ctx: OpContext) -> None:
        dst.copy_(src)


class Caller:
    """Calls handlers of one rank against one layer binding and one engine binding."""

    def __init__(self, runtime: GroupRuntime, engine: EngineBinding | None, layer: LayerBinding | None = None) -> None:
        self.runtime = runtime
        self.frame = Frame(cast(Runtime, runtime))
        self.frame.engine, self.frame.layer = engine, layer

    def __call__(
        self,
        kind: str,
        reads: Sequence[Tensor] = (),
        writes: Sequence[Tensor] = (),
        accumulates: Sequence[Tensor] = (),
        tokens: tuple[int, int] = (0, 0),
        kv: tuple[int, int] | None = None,
        mask: Mask | None = None,
        tiles: int = 1,
        pair_heads: tuple[HeadLists, ...] = (),
    ) -> None:
        """Fails when a handler modifies what it only reads, or returns something."""
        row, key_values = OP_KINDS[kind], None if kv is None else Range(*kv)
        attribute = Attribute(mask=mask, tiles=tiles)
        op = Op(cast(Section, None), 0, kind, row.stream, Range(*tokens), key_values, attribute, pair_heads)
        before = [view.clone() for view in reads]
        views: list[Any] = []
        for group, names in zip((reads, writes, accumulates), row.groups, strict=True):
            views += [tuple(group)] if names == "many" else list(group)
        handler: Callable[..., Any] = HANDLERS[kind]
        with torch.no_grad():
            result = handler(OpContext(op, self.frame), *views)
        assert result is None
        assert all(torch.equal(view, copy) for view, copy in zip(reads, before, strict=True))
        assert not any(view.requires_grad for view in (*writes, *accumulates))


def close(actual: Tensor, expected: Tensor, tolerance: float = 3e-6) -> bool:
    """Relative to the largest expected value."""
    return bool((actual - expected).abs().max() <= tolerance * expected.abs().max())
