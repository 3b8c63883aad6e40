"""The parts of bench/gpu that need no run: sketches, references, the table and the document."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu import docs
from gpu.coverage import code_lines, ranges
from gpu.lines import Lines, read_lines
from gpu.manifest import packages
from gpu.references import References, write_reference
from gpu.seeded import seeded
from gpu.sizes import device_sizes, step_rows
from gpu.sketch import relative_distance, sketch, worst_distance
from gpu.table import table_text

from tests.planned import ROOT

BENCH = ROOT / "bench" / "gpu"
CPU = torch.device("cpu")
MAX_LINES = 300
KNOWS_DEVICES = {"device.py", "docs.py", "driver.py"}
"""Two devices; what may be documented; names on the command line."""


@pytest.mark.parametrize("shape", [(40_000,), (300, 200), (9000, 3)])
@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0])
def test_a_distance_is_read_off_sketches(shape: tuple[int, ...], size: float) -> None:
    generator = torch.Generator().manual_seed(3)
    reference, change = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    found = relative_distance(sketch("weight", reference + size * change), sketch("weight", reference))
    true = size * float(change.norm() / reference.norm())
    assert found == pytest.approx(true, rel=0.5)


def test_a_sketch_is_the_same_on_every_machine() -> None:
    """Reference and result are sketched on different ones, with different libraries."""
    found = sketch("weight", seeded("weight", (3, 5), CPU, torch.float64))
    assert found["norm"] == pytest.approx(3.5912355)
    assert found["projections"][:4] == [5.46875, 6.09375, 0.5, -4.59375]
    assert found == sketch("weight", seeded("weight", (3, 5), CPU, torch.bfloat16))
    assert found != sketch("other", seeded("weight", (3, 5), CPU, torch.float64))


def test_what_is_missing_or_not_a_number_is_infinitely_far() -> None:
    one = {"a": sketch("a", torch.ones(4)), "b": sketch("b", torch.ones(4))}
    assert worst_distance(one, one) == (0.0, "")
    assert worst_distance({"a": one["a"]}, one)[0] == math.inf
    assert worst_distance({**one, "b": sketch("b", torch.full((4,), math.nan))}, one) == (math.inf, "b")


def test_the_first_of_a_run_is_the_reference_where_none_was_staged(tmp_path: Path) -> None:
    references = References(tmp_path / "staged", tmp_path / "made")
    near, far = {"a": sketch("a", torch.ones(99))}, {"a": sketch("a", -torch.ones(99))}
    assert references.compare("x", near).ok is None
    assert references.compare("x", near).ok is True and references.compare("x", far).ok is False
    write_reference(tmp_path / "staged", "x", far, bound=0.01)
    assert references.compare("x", far).source == "fp64" and references.compare("x", near).ok is False


def test_a_check_that_does_not_hold_is_a_failure_and_a_line(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "result.jsonl", "step")
    lines.check("good", True, distance=0.5)
    lines.check("bad", False, distance=math.nan)
    assert lines.failures == ["bad"]
    assert [(line["what"], line["distance"]) for line in read_lines(tmp_path / "result.jsonl")] == [
        ("good", 0.5),
        ("bad", None),
    ]


@pytest.mark.parametrize("line", ['{"kind": "be', "[1]"])
def test_a_line_that_is_broken_is_named(tmp_path: Path, line: str) -> None:
    result = tmp_path / "result.jsonl"
    result.write_text(f'{{"kind": "begin"}}\n{line}\n')
    with pytest.raises(SystemExit, match=r"result.jsonl:2 is no"):
        read_lines(result)


def test_the_document_says_that_nothing_has_run() -> None:
    assert "Nothing has run on a GPU yet" in docs.document([])
    assert docs.main(["--check"]) == 0, "npm run docs:performance"


def test_a_dry_run_is_not_documented() -> None:
    with pytest.raises(SystemExit, match="dry run"):
        docs.document([{"step": "run", "kind": "begin", "device": "cpu", "command": "x", "date": "y"}])


def test_a_run_on_a_gpu_is_documented() -> None:
    begin = {"step": "run", "kind": "begin", "device": "cuda", "command": "bash bench/gpu/run.sh", "date": "2026-01-02"}
    facts: dict[str, Any] = {"hardware": "a GPU", "versions": {"torch": "2"}, "commit": "abc", "cuda": "13", "cudnn": 9}
    end = {"step": "environment", "kind": "end", "status": "ok", "seconds": 3.0}
    text = docs.document([begin, {"step": "environment", "kind": "environment", **facts}, end])
    for part in ("a GPU", "torch 2", "abc", "bash bench/gpu/run.sh", "2026-01-02", "environment  ok"):
        assert part in text


def test_a_table_of_failures() -> None:
    lines: list[dict[str, Any]] = [
        {"step": "host", "kind": "check", "what": "bytes", "ok": False, "distance": 1.0},
        {"step": "host", "kind": "end", "status": "failed", "seconds": 1.0},
        {"step": "late", "kind": "end", "status": "skipped", "reason": "3 s are left"},
    ]
    text = table_text(lines)
    assert "failed: host: bytes {'distance': 1.0}" in text and "3 s are left" in text and "0 of 1" in text


def test_a_table_has_ours_beside_a_peer_and_a_dash_for_what_is_no_number() -> None:
    ours = {
        "step": "train",
        "kind": "train",
        "plan": "p",
        "seqLen": 64,
        "numLayers": 2,
        "kernel": "flash2",
        "strategy": {"policy": "auto", "numChunks": 2},
        "seconds": [9.0, 3.0],
        "plannedSeconds": 2.4,
        "byKind": {"attn": {"planned": 1.0, "measured": 2.0}, "zero": {"planned": 1.0, "measured": 0.01}},
        "plannedPoolBytes": {"device": 2**30},
        "allocator": {"allocatedPeakBytes": 2**29, "allocRetries": 0},
    }
    peer = {"step": "x", "kind": "peer", "plan": "p", "peer": "alst", "seqLen": 64, "seconds": [4.0], "allocator": {}}
    full = {**peer, "peer": "huggingface", "outOfMemory": "no room"}
    links = {"step": "host", "kind": "links", "copyBytes": 2**20, "h2dBytes": 5e9, "d2hBytes": None, "duplexBytes": 1e9}
    text = table_text([ours, peer, {key: value for key, value in full.items() if key != "seconds"}, links])
    (row,) = [line.split() for line in text.splitlines() if line.startswith("fpdt, auto")]
    assert row[-6:] == ["3.000", "2.400", "-20.0%", "0.50", "1.00", "0"]
    assert "a whole step of fpdt takes 0.75 of it" in text and "out of memory" in text
    assert "attn" in text and "zero" not in text
    assert [line.split()[2:] for line in text.splitlines() if line.startswith("1 MiB")] == [["5", "-", "1"]]


def test_both_devices_have_the_same_steps_and_kinds_of_sizes() -> None:
    cuda, cpu = device_sizes("cuda"), device_sizes("cpu")
    assert cuda.keys() == cpu.keys()
    assert [row["name"] for row in cuda["plans"]] == [row["name"] for row in cpu["plans"]]
    rows = [(row.name, row.work, sorted(row.sizes)) for row in step_rows(cuda)]
    assert rows == [(row.name, row.work, sorted(row.sizes)) for row in step_rows(cpu)]
    assert all(row.need_seconds <= row.limit_seconds <= cuda["totalSeconds"] <= 540 for row in step_rows(cuda))


def test_packages_are_those_that_the_tests_ran_with() -> None:
    pinned = dict(
        line.split("==") for line in (ROOT / "python" / "requirements.txt").read_text().splitlines() if "==" in line
    )
    assert packages() == {name: pinned[name] for name in packages()}


def sources() -> list[Path]:
    return sorted(BENCH.rglob("*.py"))


def test_sources_are_short() -> None:
    assert [path.name for path in sources() if len(path.read_text().splitlines()) > MAX_LINES] == []


def test_only_the_devices_know_which_one_it_is() -> None:
    """A dry run is the same code: which device it is stands in sizes.json, and in what each device does."""
    found = []
    for path in sources():
        constants = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        if path.name not in KNOWS_DEVICES and "cuda" in constants:
            found.append(path.name)
    assert found == []


def test_lines_of_functions_are_those_that_a_run_can_miss(tmp_path: Path) -> None:
    path = tmp_path / "source.py"
    path.write_text("A = 1\n\n\ndef f(x: int) -> int:\n    if x:\n        return 1\n    return 2\n")
    assert sorted(code_lines(path)) == [5, 6, 7]
    assert list(ranges([1, 2, 3, 7, 9, 10])) == ["1-3", "7", "9-10"]
