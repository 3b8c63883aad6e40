"""Locks of builds: one that a killed process left would have every later run wait for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.file_baton import FileBaton

from fpdt.run import op_builds
from fpdt.run.op_builds import free_abandoned_builds


def abandoned(root: Path, name: str = "cpu_adam") -> Path:
    """As torch leaves it when its process is killed while it compiles."""
    folder = root / name
    folder.mkdir(parents=True)
    code = (
        "import os, signal; from torch.utils.file_baton import FileBaton; "
        f"assert FileBaton({str(folder / 'lock')!r}).try_acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert (folder / "lock").exists()
    return folder / "lock"


def test_one_of_a_killed_process_is_removed_and_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lock = abandoned(tmp_path, "py311_cpu/cpu_adam")
    assert free_abandoned_builds(tmp_path) == [lock]
    assert not lock.exists()
    assert str(lock) in capfd.readouterr().err


def test_one_that_is_held_stays(tmp_path: Path) -> None:
    gone = abandoned(tmp_path, "cpu_adagrad")
    folder = tmp_path / "cpu_adam"
    folder.mkdir()
    baton = FileBaton(str(folder / "lock"))
    assert baton.try_acquire()
    assert free_abandoned_builds(tmp_path) == [gone]
    assert (folder / "lock").exists()
    baton.release()
    assert free_abandoned_builds(tmp_path) == []


def test_where_hosts_may_share_the_folder_it_is_only_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = abandoned(tmp_path)
    assert op_builds._file_system(tmp_path) != ""
    monkeypatch.setattr(op_builds, "_file_system", lambda path: "nfs4")
    assert free_abandoned_builds(tmp_path) == []
    assert lock.exists()
    assert str(lock) in capfd.readouterr().err


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert free_abandoned_builds(tmp_path / "none") == []
