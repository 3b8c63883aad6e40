"""`python -m gpu.coverage ...`: a step as gpu.step runs it, with the lines noted that it reaches.

`python -m gpu.coverage --list FOLDER`: the lines of functions in WATCHED that no step of a run reached; FOLDER is
$OUT of `run.sh --dry --coverage`, which prints them last. What stands there no dry run tells anything of.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WATCHED = ("bench/gpu", "python/fpdt/attention", "python/fpdt/devices", "python/fpdt/measure", "python/fpdt/run")
OUTSIDE = ("coverage", "docs", "driver", "manifest", "nursery", "stage", "table")
"""Of bench/gpu: no step runs them, but what runs the steps, before and after."""
FOLDER = "coverage"
SITE = """
import os
from pathlib import Path
from gpu.coverage import watch
watch(Path({folder!r}) / f"{{os.getpid()}}.json")
"""
_reached: dict[str, set[int]] = {}


def main(arguments: list[str]) -> None:
    if arguments[0] == "--list":
        print("\n".join(unreached(Path(arguments[1]))))
        return
    folder = Path(arguments[3]).absolute().parent / FOLDER
    watch(folder / f"{arguments[1]}.json")
    with tempfile.TemporaryDirectory() as site:
        (Path(site) / "sitecustomize.py").write_text(SITE.format(folder=str(folder)))
        os.environ["PYTHONPATH"] = os.pathsep.join([site, os.environ["PYTHONPATH"]])
        runpy.run_module("gpu.step", run_name="__main__")


def watch(target: Path) -> None:
    """In this thread and those it starts. Steps and what they start leave without unwinding, so `os._exit` writes."""
    leave = os._exit

    def write_and_leave(code: int) -> None:
        sys.settrace(None)
        target.parent.mkdir(parents=True, exist_ok=True)
        found = {name: sorted(lines) for name, lines in _reached.copy().items()}
        target.write_text(json.dumps(found))
        leave(code)

    os._exit = write_and_leave  # type: ignore[assignment]
    threading.settrace(_enter)
    sys.settrace(_enter)


def _enter(frame: types.FrameType, event: str, argument: Any) -> Any:
    name = frame.f_code.co_filename
    if not is_watched(name):
        return None
    lines = _reached.setdefault(name, set())
    lines.add(frame.f_lineno)

    def note(frame: types.FrameType, event: str, argument: Any) -> Any:
        lines.add(frame.f_lineno)
        return note

    return note


def is_watched(name: str) -> bool:
    return name.startswith(str(ROOT)) and name.removeprefix(f"{ROOT}/").startswith(WATCHED)


def unreached(out: Path) -> Iterator[str]:
    """`file: 3, 10-12`, of every watched file that some step imported, and the whole of those that none did."""
    reached: dict[str, set[int]] = {}
    for path in (out / FOLDER).glob("*.json"):
        for name, lines in json.loads(path.read_text()).items():
            reached.setdefault(name, set()).update(lines)
    for folder in WATCHED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.parent.name == "gpu" and path.stem in OUTSIDE:
                continue
            missing = sorted(code_lines(path) - reached.get(str(path), set()))
            if missing:
                yield f"{path.relative_to(ROOT)}: {', '.join(ranges(missing))}"


def code_lines(path: Path) -> set[int]:
    """Lines with code of any function of a file; those of its top are run by every import."""
    lines: set[int] = set()
    waiting = [compile(path.read_text(), str(path), "exec")]
    while waiting:
        code = waiting.pop()
        waiting.extend(item for item in code.co_consts if isinstance(item, types.CodeType))
        if code.co_flags & 2:  # CO_OPTIMIZED is 1, CO_NEWLOCALS 2: a function, not a module or a class
            lines |= {line for _, _, line in code.co_lines() if line is not None and line > code.co_firstlineno}
    return lines


def ranges(numbers: list[int]) -> Iterator[str]:
    start = last = numbers[0]
    for number in [*numbers[1:], -1]:
        if number == last + 1:
            last = number
            continue
        yield str(start) if start == last else f"{start}-{last}"
        start = last = number


if __name__ == "__main__":
    main(sys.argv[1:])
