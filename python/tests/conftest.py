"""Fixtures that several files share; what needs torch is imported inside, since tests of the wire do without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def flash2_calls() -> Iterator[list[dict[str, Any]]]:
    """FlashAttention-2 on the CPU; the arguments of its calls."""
    from tests.fake_flash2 import flash2_on_cpu

    with flash2_on_cpu() as calls:
        yield calls


@pytest.fixture(scope="session")
def direct_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose file system has direct transfers; there must be one."""
    from fpdt.devices.file_pool import FilePool
    from tests.file_pools import BLOCK

    candidates = [tmp_path_factory.mktemp("direct"), Path(__file__).parent, Path("/dev/shm")]
    for folder in candidates:
        if folder.is_dir():
            pool = FilePool(folder, BLOCK, "probe")
            pool.close()
            if pool.direct:
                return folder
    pytest.fail(
        f"direct transfers need a file system with O_DIRECT (ext4, xfs, btrfs, or tmpfs of Linux 6.6 or later) at one "
        f"of {', '.join(map(str, candidates))}; set TMPDIR to one"
    )
