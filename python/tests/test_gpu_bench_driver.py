"""What runs the steps of bench/gpu, and what it takes along: the driver, its processes and the staging."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gpu.driver import Nursery, Run, await_process, run_step
from gpu.lines import read_lines
from gpu.manifest import problems, write_manifest
from gpu.sizes import StepRow

from tests.planned import ROOT

BENCH = ROOT / "bench" / "gpu"


@pytest.mark.parametrize("option", ["--only", "--staging"])
def test_an_option_without_its_value_is_named(option: str) -> None:
    found = subprocess.run(["bash", BENCH / "run.sh", option], capture_output=True, text=True, check=False)
    assert found.returncode == 2 and f"{option} needs a value" in found.stderr


def test_lines_of_an_earlier_run_are_kept(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "result.jsonl").write_text('{"kind": "begin"}\n')
    subprocess.run(
        ["bash", BENCH / "run.sh", "--staging", empty],
        env={**os.environ, "OUT": str(tmp_path), "FPDT_PYTHON": sys.executable},
        capture_output=True,
        check=False,
    )
    assert (tmp_path / "result.1.jsonl").read_text() == '{"kind": "begin"}\n'


def a_run(tmp_path: Path, runner: str) -> Run:
    return Run("cpu", tmp_path, tmp_path / "result.jsonl", tmp_path, runner)


@pytest.fixture
def runners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runner_slow.py").write_text("import time\ntime.sleep(60)\n")
    (tmp_path / "runner_crash.py").write_text("raise ValueError('what went wrong')\n")
    (tmp_path / "runner_dies.py").write_text("import os\nos.kill(os.getpid(), 11)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.parametrize(("runner", "status"), [("slow", "timeout"), ("crash", "failed"), ("dies", "failed")])
def test_a_step_that_ends_badly_leaves_a_line(runners: None, tmp_path: Path, runner: str, status: str) -> None:
    row = StepRow("a-step", "work", 1.0, 0.1, {})
    assert run_step(a_run(tmp_path, f"runner_{runner}"), row, left=100.0) is False
    (line,) = read_lines(tmp_path / "result.jsonl")
    assert (line["step"], line["kind"], line["status"]) == ("a-step", "end", status)
    assert runner != "crash" or "ValueError: what went wrong" in line["tail"]


NURSERY = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace
from gpu import nursery

def leave_after(device, name, staging, result, scratch):
    print(device, name, staging, flush=True)
    if name == "slow":
        time.sleep(600)
    os._exit(3 if name == "bad" else 0)

sys.modules["gpu.step"] = SimpleNamespace(leave_after=leave_after)
nursery.PRELOADED = ("no_such_package",)
nursery.main("cpu", *map(Path, sys.argv[1:4]))
"""


def test_steps_that_are_forked_end_as_others_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "bench"), str(ROOT / "python")]))
    nursery = Nursery([sys.executable, "-c", NURSERY, "staging", "result", "scratch"])
    log = tmp_path / "log"
    limits = {"good": 100.0, "bad": 100.0, "slow": 1.0, "next": 100.0}
    ended = {step: nursery.run(step, log, limit) for step, limit in limits.items()}
    nursery.close()
    assert ended == {"good": "ok", "bad": "failed", "slow": "timeout", "next": "ok"}
    assert log.read_text() == "cpu next staging\n"
    assert "no_such_package is not there" in capfd.readouterr().err


def test_a_nursery_that_dies_is_told(tmp_path: Path) -> None:
    nursery = Nursery([sys.executable, "-c", "import sys; sys.stdin.readline(); sys.exit(7)"])
    with pytest.raises(SystemExit, match=r"gpu.nursery ended with 7"):
        nursery.run("step", tmp_path / "log", 100.0)


def test_a_step_without_time_left_is_skipped_with_a_line(tmp_path: Path) -> None:
    assert run_step(a_run(tmp_path, "runner_slow"), StepRow("late", "work", 60.0, 30.0, {}), left=29.0) is True
    (line,) = read_lines(tmp_path / "result.jsonl")
    assert line["status"] == "skipped" and "29 s are left" in line["reason"]


def test_what_takes_too_long_is_gone_with_its_children() -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    assert await_process(process, 0.5) == "timeout"
    with pytest.raises(ProcessLookupError):
        while True:
            os.killpg(process.pid, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--foo"], "unknown option --foo"),
        (["one", "two"], "one folder"),
        (["{full}"], "files that this did not make"),
        (["{file}"], "is no folder"),
    ],
)
def test_staging_replaces_nothing_but_its_own(tmp_path: Path, arguments: list[str], said: str) -> None:
    kept = tmp_path / "full" / "kept"
    kept.parent.mkdir()
    kept.write_text("mine")
    given = [one.format(full=kept.parent, file=kept) for one in arguments]
    found = subprocess.run(["bash", BENCH / "prepare.sh", *given], capture_output=True, text=True, check=False)
    assert found.returncode == 2 and said in found.stderr and kept.read_text() == "mine"


def test_staging_that_is_not_whole_is_named(tmp_path: Path) -> None:
    assert "prepare.sh" in problems(tmp_path, "cpu")[0]
    for name in ("kept", "changed", "lost"):
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path, "cpu", "a commit")
    assert problems(tmp_path, "cpu") == []
    (tmp_path / "changed").write_text("other")
    (tmp_path / "lost").unlink()
    found = problems(tmp_path, "cuda")
    assert len(found) == 3 and "for cpu, not for cuda" in found[0] and "changed" in found[1] and "lost" in found[2]


def test_staging_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"0" * 11)
    monkeypatch.setattr("gpu.manifest.MAX_BYTES", 10)
    with pytest.raises(SystemExit, match="10 can be taken along"):
        write_manifest(tmp_path, "cpu", "a commit")
