"""Views of buffers in file pools: a place in a file instead of a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fpdt.errors import PlanError
from fpdt.plan import OP_KINDS, Plan

if TYPE_CHECKING:
    from fpdt.devices.file_pool import FilePool
    from fpdt.run.runtime import Runtime

_HINT = "plan again: the plan moves what a file pool cannot"


@dataclass(frozen=True, slots=True)
class FileSlice:
    """`num_bytes` of a file from byte `offset` on, of which the first `payload_bytes` mean something."""

    pool: FilePool
    offset: int
    num_bytes: int
    payload_bytes: int


class FileSlices:
    """Makes the file side of copies; equal ones are one object. `streams` are those whose copies touch a file."""

    def __init__(self, plan: Plan, runtime: Runtime) -> None:
        self._buffers = plan.buffers
        self._pools = runtime.files
        self._made: dict[tuple[int, int], FileSlice] = {}
        kinds = plan.pool_kinds
        self._is_file = [kinds[buffer.pool] == "file" for buffer in plan.buffers]
        links = [link for link in plan.header.links if "file" in (kinds[link.from_], kinds[link.to])]
        self.streams = frozenset(plan.streams.index(link.stream) for link in links)
        if len(self.streams) != len(links):
            raise PlanError("two links to a file pool share a stream, whose order then nobody keeps", _HINT)
        if any(self._is_file):
            _check_users(plan, self._is_file)

    def is_file(self, buffer_id: int) -> bool:
        return self._is_file[buffer_id]

    def slice(self, buffer_id: int, instance: int, start: int, end: int) -> FileSlice:
        """Whole instances travel, so that transfers are aligned. Raises PlanError for a part of one."""
        buffer = self._buffers[buffer_id]
        if start != 0:
            raise PlanError(f"an access names rows [{start}:{end}) of {buffer.name}, which lives in a file", _HINT)
        key = (buffer_id, instance * buffer.rows + end)
        made = self._made.get(key)
        if made is None:
            offset = buffer.offset + instance * buffer.instance_bytes
            made = FileSlice(self._pools[buffer.pool], offset, buffer.instance_bytes, end * buffer.row_bytes)
            self._made[key] = made
        return made


def _check_users(plan: Plan, is_file: list[bool]) -> None:
    """Only copies name buffers of a file pool."""
    columns = plan.columns
    in_file = np.array(is_file, bool)[columns.access_buffer]
    links = [OP_KINDS[row.name].stream == "link" for row in plan.header.op_kinds]
    copies = np.array(links, bool)[columns.kind]
    rows = np.repeat(np.arange(len(columns.kind)), np.diff(columns.views_at))
    if (in_file[columns.view] & ~copies[rows]).any():
        raise PlanError("an op that is no copy names a buffer that lives in a file", _HINT)
