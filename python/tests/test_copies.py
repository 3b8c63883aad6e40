"""The native copy engine by itself: how it is built and found again, and what it refuses."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fpdt.copies import CopiesUnavailableError, CopyEngine, CopyEngineError, LoweredSection, copies_library, lower
from fpdt.copies.build import FOLDER, main
from tests.executor_runs import ring_plan

NUM_STREAMS, FETCH, OFFLOAD = 4, 2, 3
QUIET = (0, 0, 0, 1)


def rows(ops: list[list[int]], waits: list[list[int]], pieces: list[list[int]], params: int = 0) -> LoweredSection:
    ends = [4, 0, *(sum(op[0] == stream for op in ops) for stream in (FETCH, OFFLOAD))]
    return LoweredSection(
        header=np.array([params, *ends], np.int64),
        ops=np.array(ops, np.int64).reshape(-1, 5),
        waits=np.array(waits, np.int64).reshape(-1, 2),
        pieces=np.array(pieces, np.int64).reshape(-1, 9),
        owned=(),
        positions=(),
        ends=(),
        waits_of={},
        signalled=frozenset(),
    )


def piece(num_bytes: int, dst: int, src: int, param: int = -1, arena: int = 0) -> list[int]:
    """Within the first arena; the destination of an instance lies 8 bytes after that of the one before."""
    return [num_bytes, arena, param, dst, 8, 0, -1, src, 0]


@pytest.fixture
def memory() -> torch.Tensor:
    return torch.arange(64, dtype=torch.uint8)


@pytest.fixture
def engine(memory: torch.Tensor) -> Any:
    made = CopyEngine("threads", NUM_STREAMS, (FETCH, OFFLOAD), [(memory.data_ptr(), 64)], QUIET)
    yield made
    made.close()


def test_a_copy_waits_for_work_that_is_not_launched_yet(engine: CopyEngine, memory: torch.Tensor) -> None:
    """Two calls are queued before anything runs: bytes move when the position is written, and where arguments say."""
    program = engine.load(rows([[FETCH, 1, 1, 1, 1]], [[0, 2]], [piece(8, 32, 0, param=0)], params=1))
    masks = (0,) * NUM_STREAMS
    assert engine.run(program, (0,), masks) == [0, 0, 0, 0]
    assert engine.run(program, (1,), masks) == [4, 0, 1, 0]
    assert memory[32:48].tolist() == list(range(32, 48))
    engine.write(0, 2)
    engine.wait(FETCH, 1)
    assert memory[32:48].tolist() == [*range(8), *range(40, 48)]
    memory[:8] = 7
    engine.write(0, 6)
    engine.join()
    assert memory[40:48].tolist() == [7] * 8
    assert engine.stats(FETCH)[:4] == (2, 2, 2, 16) and engine.stats(OFFLOAD)[:4] == (0, 0, 0, 0)


def test_positions_wrap_around(engine: CopyEngine, memory: torch.Tensor) -> None:
    """After 2^32 ops of a stream its counter is where it began, and has not come to what is waited for."""
    most = 2**31 - 1
    many = rows([], [], [])
    many.header[1] = most
    passed, program = engine.load(many), engine.load(rows([[FETCH, 1, 1, 1, 1]], [[0, 2]], [piece(8, 8, 0)]))
    for number in (1, 2):
        engine.run(passed, (), (0,) * NUM_STREAMS)
        engine.write(0, number * most)
    assert engine.run(program, (), (0,) * NUM_STREAMS)[0] == 2**32 - 2
    memory[:8] = 9
    engine.write(0, 2**32)
    engine.join()
    assert memory[8:16].tolist() == [9] * 8


def test_copies_that_touch_each_other_keep_their_order_and_others_go_together(
    engine: CopyEngine, memory: torch.Tensor
) -> None:
    ops = [[FETCH, position, 0, 0, 1] for position in range(1, 4)] + [[FETCH, 4, 1, 0, 1]]
    pieces = [piece(8, 8, 0), piece(8, 16, 8), piece(8, 40, 48), piece(8, 32, 48)]
    engine.run(engine.load(rows(ops, [], pieces)), (), (0,) * NUM_STREAMS)
    engine.join()
    assert memory[8:24].tolist() == [*range(8), *range(8)] and memory[32:48].tolist() == [*range(48, 56)] * 2
    assert engine.stats(FETCH).batches == 2


def test_hidden_copies_do_nothing_and_reach_their_positions(engine: CopyEngine, memory: torch.Tensor) -> None:
    program = engine.load(rows([[OFFLOAD, 1, 1, 0, 1]], [], [piece(8, 8, 0)]))
    engine.hide(program, [True])
    engine.run(program, (), (0,) * NUM_STREAMS)
    engine.wait(OFFLOAD, 1)
    assert memory[8:16].tolist() == list(range(8, 16))
    engine.hide(program, [False])
    engine.run(program, (), (0,) * NUM_STREAMS)
    engine.join()
    assert memory[8:16].tolist() == list(range(8))
    with pytest.raises(CopyEngineError, match="expected a byte for each op"):
        engine.hide(program, [True, True])


def test_an_abort_frees_every_waiter_and_the_engine_goes_on(engine: CopyEngine, memory: torch.Tensor) -> None:
    program = engine.load(rows([[FETCH, 1, 1, 1, 1]], [[0, 4]], [piece(8, 8, 0)]))
    engine.run(program, (), (0,) * NUM_STREAMS)
    engine.run(program, (), (0, 0, 1, 0))
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(engine.wait, FETCH, 2)
        engine.fail("the disk is full")
        with pytest.raises(CopyEngineError, match="native copies: the disk is full"):
            waiter.result()
    for refused in (lambda: engine.run(program, (), (0,) * 4), lambda: engine.write(0, 8), engine.join):
        with pytest.raises(CopyEngineError, match="the disk is full"):
            refused()
    engine.reset()
    assert memory[8:16].tolist() == list(range(8, 16))
    bases = engine.run(program, (), (1, 1, 1, 1))
    assert bases == [8, 0, 2, 0]
    engine.write(0, bases[0] + 4)
    engine.join()
    assert memory[8:16].tolist() == list(range(8))


def test_a_copy_outside_of_its_arena_stops_the_engine(engine: CopyEngine) -> None:
    program = engine.load(rows([[FETCH, 1, 1, 0, 1]], [], [piece(8, 48, 0, param=0)], params=1))
    engine.run(program, (2,), (0,) * NUM_STREAMS)
    with pytest.raises(CopyEngineError, match="a copy of 8 bytes at 64 is not in arena 0 of 64 bytes"):
        engine.join()
    with pytest.raises(CopyEngineError, match="8 bytes at 64"):
        engine.wait(FETCH, 1)


WRONG = {
    "stream of an op cannot be 9": rows([[9, 1, 1, 0, 0]], [], []),
    "op 0 is on stream 0, which has no queue": rows([[0, 1, 1, 0, 0]], [], []),
    "position of an op cannot be 3": rows([[FETCH, 3, 1, 0, 0]], [], []),
    "signals cannot be 2": rows([[FETCH, 1, 2, 0, 0]], [], []),
    "waits cannot be 1": rows([[FETCH, 1, 1, 1, 0]], [], []),
    "position of a wait cannot be 5": rows([[FETCH, 1, 1, 1, 0]], [[0, 5]], []),
    "there are waits or pieces that no op has": rows([[FETCH, 1, 1, 0, 0]], [[0, 1]], []),
    "bytes cannot be 0": rows([[FETCH, 1, 1, 0, 1]], [], [piece(0, 0, 8)]),
    "arena cannot be 1": rows([[FETCH, 1, 1, 0, 1]], [], [piece(8, 0, 8, arena=1)]),
    "param cannot be 0": rows([[FETCH, 1, 1, 0, 1]], [], [piece(8, 0, 8, param=0)]),
    "offset cannot be -1": rows([[FETCH, 1, 1, 0, 1]], [], [piece(8, -1, 8)]),
}


@pytest.mark.parametrize("message", WRONG)
def test_rows_that_no_section_has_are_refused(engine: CopyEngine, message: str) -> None:
    with pytest.raises(CopyEngineError, match=message):
        engine.load(WRONG[message])


def test_calls_that_the_engine_does_not_know_are_refused(engine: CopyEngine, memory: torch.Tensor) -> None:
    program = engine.load(rows([[FETCH, 1, 1, 0, 0]], [], []))
    with pytest.raises(CopyEngineError, match="program 0 has 0 parameters, the call 1 arguments"):
        engine.run(program, (1,), (0,) * NUM_STREAMS)
    with pytest.raises(CopyEngineError, match="native copies"):
        engine.run(7, (), (0,) * NUM_STREAMS)
    with pytest.raises(CopyEngineError, match="there is no stream 9"):
        engine.wait(9, 1)
    with pytest.raises(CopyEngineError, match="stream 0 has no queue"):
        engine.stats(0)
    for device, options in (("quantum", ()), ("threads", (1,)), ("cuda", (0, 0, 0, 0, 0))):
        with pytest.raises(CopyEngineError, match=f"this library has no device {device} with {len(options)} options"):
            CopyEngine(device, NUM_STREAMS, (FETCH,), [], options)
    with pytest.raises(CopyEngineError, match="expected 1 to 31 streams and queues among them"):
        CopyEngine("null", 2, (FETCH,), [])


def test_sections_are_lowered_to_positions_on_streams() -> None:
    """Op 3i fetches, op 3i + 1 computes, op 3i + 2 offloads; the ring has two slots."""
    found = lower(ring_plan(num_chunks=3).sections["layerForward"], (FETCH, OFFLOAD), ("hbm", "host"))
    assert found.ends[:4] == (3, 0, 3, 3) and found.positions == (1, 1, 1, 2, 2, 2, 3, 3, 3)
    assert found.owned == (0, 2, 3, 5, 6, 8) and found.signalled == {1, 4, 7}
    assert found.waits_of == {1: ((FETCH, 1),), 4: ((FETCH, 2),), 7: ((FETCH, 3),)}
    assert found.waits.tolist() == [[0, 1], [0, 2], [OFFLOAD, 1], [0, 3]]


def fake_compiler(folder: Path, last: str) -> str:
    """Says its version, and for anything else runs `last` with the output file in $out."""
    path = folder / "compiler"
    find = 'for word in "$@"; do [ "$before" = -o ] && out="$word"; before="$word"; done'
    path.write_text(f'#!/bin/sh\n[ "$1" = -dumpfullversion ] && echo 1 && exit\n{find}\n{last}\n')
    path.chmod(0o755)
    return str(path)


def test_the_library_is_compiled_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By as many as ask at a time; a changed source is another library."""
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, f'sleep 0.2; echo x >> {tmp_path}/runs; echo made > "$out"'))
    sources = tmp_path / "sources"
    shutil.copytree(FOLDER, sources)
    with ThreadPoolExecutor(4) as pool:
        found = {future.result() for future in [pool.submit(copies_library, sources, tmp_path) for _ in range(4)]}
    assert [path.read_text() for path in found] == ["made\n"] and (tmp_path / "runs").read_text() == "x\n"
    (sources / "null_device.h").write_text((sources / "null_device.h").read_text() + "// changed\n")
    assert copies_library(sources, tmp_path) not in found


def test_without_a_compiler_the_set_up_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    with pytest.raises(CopiesUnavailableError, match=r"no C\+\+ compiler .* looked for /nonexistent/c\+\+") as caught:
        copies_library()
    assert "install g++" in caught.value.hint
    main()
    said = capsys.readouterr().err
    assert said.count("no native copy engine") == 1 and "all else works" in said


def test_what_keeps_the_library_from_being_built_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CopiesUnavailableError, match="the sources of the copy engine are not in"):
        copies_library(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(CopiesUnavailableError, match=r"cannot write .*File exists"):
        copies_library(cache=tmp_path / "file")
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, 'echo "a.cc: error: no C++17" >&2; exit 1'))
    with pytest.raises(CopiesUnavailableError, match=r"could not compile the copy engine: a\.cc: error: no C\+\+17"):
        copies_library(cache=tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    sources = tmp_path / "sources"
    shutil.copytree(FOLDER, sources)
    (sources / "copy_engine.cc").unlink()
    with pytest.raises(CopiesUnavailableError, match=r"cannot read .*copy_engine\.cc"):
        copies_library(sources, tmp_path / "cache")
