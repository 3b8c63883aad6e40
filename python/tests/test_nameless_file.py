"""The file of a pool: its space is its own, nothing is left behind, and refusals say what to change."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fpdt.devices.file_pool import FilePool, FilePoolError
from tests.file_pools import BLOCK, fail, num_pool_threads, settle

HERE = Path(__file__).parent


def test_the_file_has_its_space_and_no_name(tmp_path: Path) -> None:
    pool = FilePool(tmp_path, 10 * BLOCK + 1, "disk")
    assert list(tmp_path.iterdir()) == []
    status = os.fstat(pool._descriptor)
    assert (status.st_nlink, status.st_size) == (0, 11 * BLOCK)
    assert status.st_blocks * 512 >= 11 * BLOCK, "reserved, not a hole"
    pool.close()


CHILD = """
import sys, time
from pathlib import Path
from fpdt.devices.file_pool import FilePool
import torch
pool = FilePool(Path(sys.argv[1]), 1 << 20, "disk", direct=False)
pool.write(0, torch.ones(1 << 20, dtype=torch.uint8)).wait()
print("written", flush=True)
time.sleep(600)
"""


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        assert list(tmp_path.iterdir()) == []
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_folders_that_will_not_do_are_named(tmp_path: Path) -> None:
    a_file = tmp_path / "file"
    a_file.touch()
    cases = {tmp_path / "missing": "No such file", a_file: "Not a directory", Path("/sys/kernel"): "Permission denied"}
    for folder, reason in cases.items():
        with pytest.raises(FilePoolError, match=f"cannot make a file in {folder}: {reason}") as caught:
            FilePool(folder, BLOCK, "disk")
        assert "--disk-folder" in caught.value.hint
    assert num_pool_threads() == 0


def test_a_file_size_limit_is_met_when_the_file_is_made(tmp_path: Path) -> None:
    """A real refusal by the kernel, of this process alone."""
    num_open = len(list(Path("/proc/self/fd").iterdir()))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * BLOCK, hard))
    try:
        with pytest.raises(FilePoolError, match=f"cannot reserve {65 * BLOCK} bytes in .*File too large") as caught:
            FilePool(tmp_path, 65 * BLOCK, "disk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (
        caught.value.hint
        == "choose another --disk-folder, raise the quota or file size limit there, or lower diskBytes"
    )
    assert len(list(Path("/proc/self/fd").iterdir())) == num_open, "nothing stays open"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_how_much_to_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    fail(monkeypatch, "posix_fallocate", code)
    with pytest.raises(FilePoolError, match="cannot reserve") as caught:
        FilePool(tmp_path, free + (1 << 40), "disk")
    words = caught.value.hint.split()
    assert (words[:4], words[5:]) == (
        ["choose", "another", "--disk-folder,", "free"],
        ["bytes", "there,", "or", "lower", "diskBytes"],
    )
    assert abs(int(words[4]) - (1 << 40)) < 1 << 38, "what is missing, on a disk that others use too"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_fallocate_is_filled_with_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fail(monkeypatch, "posix_fallocate", code)
    num_bytes = (2 << 20) + 3 * BLOCK
    pool = FilePool(tmp_path, num_bytes, "disk")
    status = os.fstat(pool._descriptor)
    assert status.st_size == num_bytes and status.st_blocks * 512 >= num_bytes
    pool.close()
    fail(monkeypatch, "pwrite", errno.ENOSPC)
    with pytest.raises(FilePoolError, match=r"cannot reserve .* No space left on device"):
        FilePool(tmp_path, num_bytes, "disk")


def test_a_file_system_without_direct_transfers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the flag is refused, and where the first transfer is: buffered transfers are whole again."""
    real_fcntl, real_pwritev = fcntl.fcntl, os.pwritev

    def refuse_flag(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real_fcntl(descriptor, command, argument)

    def refuse_transfer(descriptor: int, buffers: Any, offset: int) -> int:
        if real_fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real_pwritev(descriptor, buffers, offset)

    for module, name, refuse in ((fcntl, "fcntl", refuse_flag), (os, "pwritev", refuse_transfer)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, refuse)
            with pytest.raises(FilePoolError, match="has no direct transfers") as caught:
                FilePool(tmp_path, BLOCK, "disk", direct=True)
            assert "--disk-folder" in caught.value.hint
            pool = FilePool(tmp_path, BLOCK, "disk")
            assert not pool.direct
            settle(pool.write(1, torch.ones(3, dtype=torch.uint8)))
            pool.close()
