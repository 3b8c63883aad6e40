"""The allocator's twin: its rules of segments, and blocks that streams still use."""

from __future__ import annotations

import random

from fpdt.testing.fake_cuda.allocator import Block, CachingAllocator
from fpdt.testing.fake_cuda.device import Device, Stream

KIB, MIB = 1 << 10, 1 << 20


def test_sizes_and_segments_are_rounded() -> None:
    stream = Device(is_lazy=True).current
    for asked, block, reserved in [
        (0, 512, 2 * MIB),
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (21 * MIB - 5, 22 * MIB, 22 * MIB),
    ]:
        allocator = CachingAllocator()
        assert allocator.allocate(asked, stream).num_bytes == block, asked
        assert (allocator.active_bytes, allocator.reserved_bytes) == (block, reserved), asked


def test_the_smallest_free_block_is_split_and_neighbours_become_one() -> None:
    allocator, stream = CachingAllocator(), Device(is_lazy=True).current
    blocks = [allocator.allocate(512 * KIB, stream) for _ in range(4)]
    assert allocator.reserved_bytes == 2 * MIB
    small = allocator.allocate(KIB, stream)
    assert allocator.reserved_bytes == 4 * MIB
    for block in (blocks[0], blocks[2]):
        allocator.give_back(block)
    assert allocator.allocate(512 * KIB, stream) is blocks[0]
    allocator.give_back(blocks[0])
    allocator.give_back(blocks[1])
    assert allocator.allocate(MIB, stream).num_bytes == MIB, "of three neighbours that are one again"
    allocator.give_back(small)
    assert allocator.reserved_bytes == 4 * MIB


def test_streams_share_nothing() -> None:
    device = Device(is_lazy=True)
    allocator, other = CachingAllocator(), Stream(device)
    allocator.give_back(allocator.allocate(KIB, device.current))
    allocator.allocate(KIB, other)
    assert allocator.reserved_bytes == 4 * MIB
    allocator.allocate(KIB, device.current)
    assert allocator.reserved_bytes == 4 * MIB


def test_a_block_is_free_when_the_streams_that_used_it_have_come_so_far() -> None:
    device = Device(is_lazy=True)
    allocator, first, second = CachingAllocator(), Stream(device), Stream(device)
    block = allocator.allocate(KIB, device.current)
    for stream in (first, second, device.current):
        stream.queue_work(lambda: None)
        allocator.record_stream(block, stream)
    allocator.give_back(block)
    first.queue_work(lambda: None)
    first.complete()
    assert allocator.allocate(KIB, device.current) is not block
    assert allocator.active_bytes == 2 * KIB
    second.complete()
    assert allocator.allocate(KIB, device.current) is block
    assert (allocator.active_bytes, allocator.peak_bytes) == (2 * KIB, 2 * KIB)
    allocator.give_back(block)
    assert allocator.active_bytes == KIB, "its own stream's use needs no waiting, and others' are over"


def test_bytes_are_neither_lost_nor_made() -> None:
    drawn, device = random.Random(3), Device(5)
    allocator, streams = CachingAllocator(), [device.current, Stream(device), Stream(device)]
    used: list[Block] = []
    for _ in range(5000):
        if used and drawn.random() < 0.5:
            allocator.give_back(used.pop(drawn.randrange(len(used))))
            continue
        size, stream = int(2 ** drawn.uniform(0, 25)), drawn.choice(streams)
        block = allocator.allocate(size, stream)
        assert block.num_bytes >= size and block.stream is stream and all(block is not other for other in used)
        if drawn.random() < 0.3:
            drawn.choice(streams).queue_work(lambda: None)
            allocator.record_stream(block, drawn.choice(streams))
        used.append(block)
        assert sum(one.num_bytes for one in used) <= allocator.active_bytes <= allocator.reserved_bytes
    for block in used:
        allocator.give_back(block)
    device.synchronize()
    allocator.allocate(1, device.current)
    assert allocator.active_bytes == 512


def test_a_full_launch_queue_makes_the_host_wait_for_its_oldest_entry() -> None:
    device = Device(is_lazy=True, queue_depth=3)
    other = Stream(device)
    done: list[int] = []
    other.queue_work(lambda: done.append(-1))
    device.current.wait_event(other.record_event())
    for number in range(3):
        device.launch(lambda number=number: done.append(number))  # type: ignore[misc]
    assert done == [-1] and len(device.current.queue) == 3
    device.launch(lambda: None)
    assert done == [-1, 0]
