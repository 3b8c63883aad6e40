"""Writes the ops of a step as a Chrome trace: one file a rank, streams as threads, sections and layers as arguments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from fpdt.measure.timing import CallLog

MICROSECONDS = 1e6
SPAN_THREAD = "zero"
"""The thread of what DeepSpeed does between the ops."""


class TraceWriter:
    """Opens `trace-step000003-rank0.json` in `folder`; events are written as they come, none is kept."""

    def __init__(self, folder: Path, step: int, rank: int, streams: Sequence[str], kinds: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"trace-step{step:06d}-rank{rank}.json"
        self._file = self.path.open("w", encoding="utf-8")
        self._rank, self._kinds, self._span_thread = rank, kinds, len(streams)
        self._file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
        names = [self._name_thread(thread, name) for thread, name in enumerate([*streams, SPAN_THREAD])]
        self._file.write(",\n".join(names))

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.write("\n]}\n")
        self._file.close()

    def write(self, log: CallLog) -> None:
        source, section = log.source, json.dumps(log.source.name)
        kinds, streams, names = source.kinds, source.streams, self._kinds
        for op, start, end in zip(log.ops, log.starts, log.ends, strict=True):
            self._file.write(
                f',\n{{"ph":"X","name":"{names[kinds[op]]}","cat":{section},"pid":{self._rank},"tid":{streams[op]},'
                f'"ts":{start * MICROSECONDS:.1f},"dur":{(end - start) * MICROSECONDS:.1f},'
                f'"args":{{"section":{section},"layer":{log.layer},"op":{op}}}}}'
            )

    def write_span(self, kind: str, start: float, end: float) -> None:
        event = {
            "ph": "X",
            "name": kind,
            "pid": self._rank,
            "tid": self._span_thread,
            "ts": round(start * MICROSECONDS, 1),
            "dur": round((end - start) * MICROSECONDS, 1),
        }
        self._file.write(",\n" + json.dumps(event))

    def _name_thread(self, thread: int, name: str) -> str:
        event = {"ph": "M", "name": "thread_name", "pid": self._rank, "tid": thread, "args": {"name": name}}
        return json.dumps(event)
