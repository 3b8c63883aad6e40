"""Host arenas of a GPU: where they are cut, that they are page-locked all or none, and whose CPUs touch them first."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fpdt.devices import host_arena
from fpdt.devices.host_arena import MAX_PIECE_BYTES, PageLocks, cut, pinned_arena, view_spans
from fpdt.errors import ArenaError
from fpdt.plan import Plan, load_plan
from fpdt.run.arena import Arena, Piece, Views
from fpdt.testing.fake_cuda.device import Device
from fpdt.testing.fake_cuda.install import made_up
from fpdt.testing.fake_cuda.pinned import PinnedRanges
from tests.fake_cuda_plans import PlanOf

PAGE = mmap.PAGESIZE
GIB = 1 << 30
NONE = np.empty((0, 2), np.int64)


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> Iterator[PinnedRanges]:
    found = PinnedRanges()
    monkeypatch.setattr(host_arena, "_near_cpus", lambda _: frozenset())
    with made_up(Device(), ranges=found):
        yield found


def spans(*found: Piece) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array(found, np.int64).reshape(-1, 2)


def test_an_arena_is_one_piece_as_long_as_it_may_be() -> None:
    assert cut(MAX_PIECE_BYTES, NONE) == ((0, MAX_PIECE_BYTES),)
    assert cut(0, NONE) == ()
    assert cut(154 * GIB, NONE) == ((0, 64 * GIB), (64 * GIB, 128 * GIB), (128 * GIB, 154 * GIB))


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        # A view that ends, or begins, on a page may have the cut beside it.
        ([(0, 300), (300, 800)], [(0, 300), (300, 800), (800, 1000)]),
        ([(100, 550)], [(0, 100), (100, 600), (600, 1000)]),
        # Buffers that share bytes: no cut in what any of them spans.
        ([(0, 200), (100, 400), (350, 600), (600, 700)], None),
        ([(0, 200), (150, 400), (400, 700)], [(0, 400), (400, 900), (900, 1000)]),
        # Between views that leave no page boundary free there is no place.
        ([(0, 250), (250, 510)], None),
        ([(0, 250), (310, 600)], [(0, 300), (300, 800), (800, 1000)]),
    ],
)
def test_no_view_lies_across_a_cut(views: list[Piece], expected: list[Piece] | None) -> None:
    if expected is None:
        with pytest.raises(ArenaError, match="cannot be page-locked in pieces of 500 bytes") as caught:
            cut(1000, spans(*views), most=500, page=100)
        assert "more chunks" in caught.value.hint
        return
    assert list(cut(1000, spans(*views), most=500, page=100)) == expected


@pytest.mark.parametrize("name", ["keys on the host", "windows, ranges, a file"])
def test_every_view_of_a_plan_lies_in_one_registered_range(
    name: str, fake_cuda_plan: PlanOf, ranges: PinnedRanges
) -> None:
    plan = load_plan(fake_cuda_plan(name))
    size = next(pool.bytes for pool in plan.header.pools if pool.name == "host")
    # An arena that starts on a page and whose pieces do is what the driver sees; pages of this one are small.
    pieces = cut(size, view_spans(plan, "host"), most=size // 3, page=16)
    assert len(pieces) > 2
    arena = Arena("host", torch.zeros(size, dtype=torch.uint8), pieces=pieces)
    locks = PageLocks([arena])
    assert sorted(ranges.ranges.values()) == sorted(end - start for start, end in pieces)
    views = list(host_views(plan, arena))
    assert views and all(ranges.is_copyable(view.data_ptr(), view.numel() * view.element_size()) for view in views)
    locks.release()
    assert (ranges.ranges, ranges.pending_error) == ({}, 0)


def host_views(plan: Plan, arena: Arena) -> Iterator[torch.Tensor]:
    """Of every instance that an access may name."""
    views = Views(plan, {"host": arena})
    for section in plan.sections.values():
        for op in section.make_ops():
            for access in op.accesses:
                buffer = plan.buffers[access.buffer]
                for instance in range(buffer.instances if buffer.pool == "host" else 0):
                    yield views.rows(access.buffer, instance, access.start, access.end)


@pytest.mark.parametrize("num_allowed", [0, 1, 2, 4])
def test_what_is_locked_when_one_is_refused_is_given_back_in_reverse(
    num_allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, released = PinnedRanges(num_allowed=num_allowed), list[int]()

    def release(address: int) -> int:
        released.append(address)
        return PinnedRanges.cudaHostUnregister(found, address)

    monkeypatch.setattr(found, "cudaHostUnregister", release)
    arenas = [Arena(name, torch.zeros(4 * PAGE, dtype=torch.uint8), pieces=THREE) for name in ("a", "b")]
    first = [arena.tensor.data_ptr() + start for arena in arenas for start, _ in THREE]
    with made_up(Device(), ranges=found), pytest.raises(ArenaError, match="failed with code 2") as caught:
        PageLocks(arenas)
    assert released == first[:num_allowed][::-1]
    assert (found.ranges, found.pending_error) == ({}, 0)
    assert "hostBytes" in caught.value.hint and "ulimit" not in caught.value.hint


THREE = ((0, PAGE), (PAGE, 2 * PAGE), (2 * PAGE, 4 * PAGE))


def test_memory_that_is_locked_already_is_refused(ranges: PinnedRanges) -> None:
    arena = Arena("a", torch.zeros(PAGE, dtype=torch.uint8))
    PageLocks([arena])
    with pytest.raises(ArenaError, match="code 712"):
        PageLocks([arena])
    assert (len(ranges.ranges), ranges.pending_error) == (1, 0)


def test_an_arena_is_zeros_in_huge_pages_that_a_child_does_not_get(ranges: PinnedRanges) -> None:
    del ranges
    arena = pinned_arena("host", 5 << 20, 0, NONE)
    assert arena.num_bytes == arena.touched_bytes() == 5 << 20
    assert arena.tensor.data_ptr() % host_arena.HUGE_PAGE_BYTES == 0 and not arena.tensor.any()
    fields = mapping_fields(arena.tensor.data_ptr())
    assert int(fields["Rss"].split()[0]) >= 5 << 10
    flags = set(fields["VmFlags"].split())
    assert "dc" in flags and ("hg" in flags or not Path("/sys/kernel/mm/transparent_hugepage").exists())


def test_an_empty_arena_can_be_made(ranges: PinnedRanges) -> None:
    PageLocks([pinned_arena("host", 0, 0, NONE)])
    assert ranges.ranges == {}


def mapping_fields(address: int) -> dict[str, str]:
    """What the kernel says of the mapping that holds an address."""
    fields: dict[str, str] = {}
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, rest = line.partition(" ")
        start, is_range, end = name.partition("-")
        if is_range and not name.endswith(":"):
            if fields:
                return fields
            inside = int(start, 16) <= address < int(end, 16)
        elif inside:
            fields[name.removesuffix(":")] = rest
    return fields


def test_cpus_of_the_gpus_node_touch_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(pci_domain_id=0, pci_bus_id=0xDC, pci_device_id=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(host_arena, "SYSFS", tmp_path)
    assert host_arena._near_cpus(0) == frozenset()
    gpu, node = tmp_path / "bus/pci/devices/0000:dc:00.0", tmp_path / "devices/system/node/node1"
    gpu.mkdir(parents=True)
    node.mkdir(parents=True)
    own = min(os.sched_getaffinity(0))
    (node / "cpulist").write_text(f"{own},4000-4003\n")
    (gpu / "numa_node").write_text("-1\n")
    assert host_arena._near_cpus(0) == frozenset()
    (gpu / "numa_node").write_text("1\n")
    assert host_arena._near_cpus(0) == {own}
    bound: list[object] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda who, cpus: bound.append((who, cpus)))
    host_arena._touch(np.zeros(64 << 20, np.uint8), frozenset({own}))
    # Threads start as they are needed, each bound before it touches anything.
    assert bound and set(map(str, bound)) == {str((0, frozenset({own})))}
