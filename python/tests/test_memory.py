"""LiveBytes against liveness worked out by hand."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from fpdt.measure.memory import LiveBytes, measure_load, measure_pools
from fpdt.run.arena import Arena, mapped_arena

KIB = 1024


def kib(n: int = 1) -> Tensor:
    return torch.empty(n * KIB // 4)


def measure(program: Callable[[LiveBytes], Any]) -> tuple[int, int]:
    """(live while the result is held, peak), in KiB."""
    gc.collect()
    live = LiveBytes()
    with live:
        held = program(live)
        measured = live.live_bytes // KIB, live.peak_bytes // KIB
        del held
    assert live.live_bytes == 0
    return measured


def views(live: LiveBytes) -> Any:
    base = kib(4)
    return base[:256], base.view(2, -1).t(), base.detach(), base.view(torch.uint8), base.expand(3, -1)[1:]


def in_place(live: LiveBytes) -> Any:
    base = kib(4)
    base.add_(1).mul_(2)
    base[:256].fill_(3)
    torch.add(base, base, out=base)
    return base.clamp_(0, 1)


def out_grows(live: LiveBytes) -> Any:
    return torch.add(kib(4), 1, out=torch.empty(0))


def freed_between(live: LiveBytes) -> Any:
    first = kib(4)
    second = first + 1
    del first
    return second + 1, second


def data_swapped(live: LiveBytes) -> Any:
    tensor = kib(8)
    tensor.data = kib(2)
    return tensor


def resized(live: LiveBytes) -> Any:
    tensor = kib(8)
    tensor.untyped_storage().resize_(0)
    assert live.live_bytes == 0
    tensor.untyped_storage().resize_(3 * KIB)
    return tensor


def saved_by_autograd(live: LiveBytes) -> Any:
    weight = kib(1).requires_grad_()
    return weight, (weight * 2).sin().sum(dim=0, keepdim=True).expand(256)


def freed_in_backward(live: LiveBytes) -> Any:
    weight = kib(4).requires_grad_()
    loss = weight.sin().exp().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return weight


def checkpointed(live: LiveBytes) -> Any:
    weight = kib(4).requires_grad_()
    return checkpoint(lambda x: x.sin().exp().cos(), weight, use_reentrant=False), weight


def from_python(live: LiveBytes) -> Any:
    return torch.tensor([1.0] * 256), torch.ones(256), torch.arange(128)


def held_by_storage_alone(live: LiveBytes) -> Any:
    return kib(2).untyped_storage()


def in_a_custom_function(live: LiveBytes) -> Any:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(kib(2))
            return x * 2

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return gradients[0] * 2

    weight = kib(1).requires_grad_()
    return weight, Double.apply(weight)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("program", "live", "peak"),
    [
        (views, 4, 4),
        (in_place, 4, 4),
        (out_grows, 4, 8),
        (freed_between, 8, 8),
        (data_swapped, 2, 10),
        (resized, 3, 8),
        (saved_by_autograd, 2, 3),
        (freed_in_backward, 8, 16),
        (checkpointed, 8, 12),
        (from_python, 3, 3),
        (held_by_storage_alone, 2, 2),
        (in_a_custom_function, 4, 4),
    ],
)
def test_counts_what_is_live(program: Callable[[LiveBytes], Any], live: int, peak: int) -> None:
    assert measure(program) == (live, peak)


def test_a_reference_cycle_lives_until_collected() -> None:
    def cycle(live: LiveBytes) -> Any:
        holder: list[Any] = [kib(2)]
        holder.append(holder)
        del holder
        before = live.live_bytes
        gc.collect()
        return before - live.live_bytes

    gc.disable()
    try:
        assert measure(cycle) == (0, 2)
    finally:
        gc.enable()


def test_a_leak_stays() -> None:
    kept: list[Tensor] = []
    live = LiveBytes()
    with live:
        for _ in range(3):
            kept.append(kib(2)[:1])
            kib(5)
    assert (live.live_bytes, live.peak_bytes) == (6 * KIB, 11 * KIB - 2 * KIB + 2 * KIB)
    kept.clear()
    assert live.live_bytes == 0


def test_what_was_made_before_counts_only_when_adopted() -> None:
    old, arena = kib(4), torch.empty(KIB, dtype=torch.uint8)
    live = LiveBytes()
    with live:
        old.add_(1)
        view = torch.empty(0).set_(arena.untyped_storage(), 0, (256,), (1,))
        view.fill_(1)
        assert live.live_bytes == 0
        live.adopt([old, old[:4]])
        assert live.live_bytes == 4 * KIB
    del old
    assert live.live_bytes == 0


def test_peak_can_be_reset() -> None:
    live = LiveBytes()
    with live:
        kept = kib(1)
        kib(8)
        assert live.peak_bytes == 9 * KIB
        live.reset_peak()
        assert live.peak_bytes == KIB
    del kept


def test_scopes_see_their_own_peak_and_survivors() -> None:
    live = LiveBytes()
    with live:
        before = kib(4)
        with live.scope() as outer:
            with live.scope() as inner:
                survivor = before + before[:1] + 1
            kib(2)
    assert (inner.peak_bytes, outer.peak_bytes) == (8 * KIB, 8 * KIB)
    assert [made.num_bytes for made in inner.alive] == [4 * KIB] == [made.num_bytes for made in outer.alive]
    assert "aten.add" in inner.alive[0].made_by
    del survivor


def test_a_scope_may_wait_for_what_another_thread_is_about_to_drop() -> None:
    live, held = LiveBytes(), list[Tensor]()
    with live:
        with live.scope(settle_seconds=10) as patient:
            held.append(kib(1))
            threading.Timer(0.02, held.clear).start()
        with live.scope() as impatient:
            held.append(kib(1))
    assert (len(patient.alive), len(impatient.alive)) == (0, 1)


def test_resize_is_itself_again_outside() -> None:
    original = torch.UntypedStorage.resize_
    with LiveBytes():
        assert torch.UntypedStorage.resize_ is not original
    assert torch.UntypedStorage.resize_ is original


KINDS = {"hbm": "device", "host": "pinned", "disk": "file"}


@dataclass
class Pools:
    """The part of a Runtime that is measured."""

    peak: int | None = None
    arenas: Mapping[str, Arena] = field(
        default_factory=lambda: {name: mapped_arena(name, 1 << 20) for name in ("hbm", "host")}
    )
    files: Mapping[str, Any] = field(default_factory=dict)

    def device_peak_bytes(self) -> int | None:
        return self.peak


def test_pools_add_to_the_touched_arena_of_the_device_what_torch_allocated() -> None:
    pools = Pools()
    live = LiveBytes()
    with live:
        kib(64)
    pools.arenas["hbm"].tensor[:8192].fill_(1)
    pools.arenas["host"].tensor[:4096].fill_(1)
    assert measure_pools(KINDS, pools, live) == {"hbm": 8192 + 64 * KIB, "host": 4096, "disk": 0}
    assert measure_pools(KINDS, pools) == {"hbm": 8192, "host": 4096, "disk": 0}


def test_a_file_counts_its_size_and_a_device_with_a_peak_of_its_own_that() -> None:
    pools = Pools(peak=12345, files={"disk": SimpleNamespace(num_bytes=1 << 16)})
    assert measure_pools(KINDS, pools, LiveBytes()) == {"hbm": 12345, "host": 0, "disk": 1 << 16}


def test_a_plan_without_a_device_pool_has_only_what_it_has() -> None:
    assert measure_pools({"host": "pinned"}, Pools(peak=1)) == {"host": 0}


def test_start_up_is_the_device_pools_alone_by_its_own_peak_where_it_keeps_one() -> None:
    live = LiveBytes()
    with live:
        kib(64)
    assert measure_load(KINDS, None, live) == {"hbm": 64 * KIB}
    assert measure_load(KINDS, 12345, live) == {"hbm": 12345}
    assert measure_load({"host": "pinned"}, 12345, live) == {}


def test_tensors_on_the_meta_device_are_nothing_and_fake_ones_what_they_stand_for() -> None:
    live = LiveBytes()
    with FakeTensorMode(), live:
        nothing = torch.empty(1024, device="meta")
        fake = kib(64)
        assert live.live_bytes == 64 * KIB
        del fake, nothing
    assert live.live_bytes == 0
