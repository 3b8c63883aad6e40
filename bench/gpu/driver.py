"""`python -m gpu.driver --device cuda|cpu --staging FOLDER --out FOLDER`: all steps of sizes.json, one after the other.

Each is a process of its own with a time limit of its own, and adds its lines to result.jsonl as it goes. A step that
fails or takes too long leaves a line that says so, and the next one goes on; one that no time is left for leaves a line
too. The standard library only: what this needs is there whatever else is missing.
"""

from __future__ import annotations

import argparse
import datetime
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from gpu.lines import append, read_lines
from gpu.manifest import NAME as MANIFEST
from gpu.manifest import problems
from gpu.sizes import StepRow, device_sizes, step_rows
from gpu.table import table_text

TAIL_CHARACTERS = 4000
KILL_SECONDS = 5.0
IMPORT_SECONDS = 300.0
_STARTED = time.monotonic()


class Nursery:
    """The process of gpu/nursery.py: steps that begin with what they import."""

    def __init__(self, command: list[str]) -> None:
        # Unbuffered: what was read is what `select` no longer tells of.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def run(self, step: str, log: Path, limit: float) -> str:
        """As await_process; the limit begins with the step, whatever the imports before the first one took."""
        process = self._process
        assert process.stdin is not None
        process.stdin.write(f"{step}\t{log}\n".encode())
        group = self._number(IMPORT_SECONDS)
        if group is None:
            raise SystemExit(f"gpu.nursery did not begin {step} within {IMPORT_SECONDS:g} s")
        code = self._number(limit)
        if code is None:
            os.killpg(group, signal.SIGKILL)
            # Its exit code must not be taken for the next step's group.
            if self._number(IMPORT_SECONDS) is None:
                raise SystemExit(f"{step} was killed and did not end within {IMPORT_SECONDS:g} s")
            return "timeout"
        return "ok" if code == 0 else "failed"

    def close(self) -> None:
        self._process.communicate()

    def _number(self, seconds: float) -> int | None:
        """The next line; None where none comes in so long. Raises SystemExit where the process is gone."""
        out = self._process.stdout
        assert out is not None
        if not select.select([out], [], [], seconds)[0]:
            return None
        line = out.readline()
        if line:
            return int(line)
        raise SystemExit(f"gpu.nursery ended with {self._process.wait()}")


@dataclass(frozen=True)
class Run:
    """`scratch`: for logs, unpacked wheels and the sketches that steps leave each other. Results are elsewhere."""

    device: str
    staging: Path
    result: Path
    scratch: Path
    runner: str
    nursery: Nursery | None = None
    """Where steps come from; None: each is a Python of its own."""

    def python(self, module: str, *step: str) -> list[str]:
        places = map(str, (self.staging, self.result, self.scratch))
        return [sys.executable, "-m", module, self.device, *step, *places]


def main() -> int:
    parser = argparse.ArgumentParser(prog="gpu.driver", description=(__doc__ or "").partition("\n")[2].strip())
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--staging", type=Path, required=True, help="what bench/gpu/prepare.sh made")
    parser.add_argument("--out", type=Path, required=True, help="folder for result.jsonl")
    parser.add_argument("--only", help="names of steps, with commas between them; default: all")
    parser.add_argument("--command", default="python -m gpu.driver", help="what the user gave, for the record")
    parser.add_argument("--fork", action="store_true", help="steps of several are forks of one process; not for a GPU")
    parser.add_argument("--runner", default="gpu.step", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes = device_sizes(args.device)
    rows = chosen(step_rows(sizes), args.only)
    args.out.mkdir(parents=True, exist_ok=True)
    result: Path = args.out / "result.jsonl"
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    append(result, {"step": "run", "kind": "begin", "device": args.device, "date": date, "command": args.command})
    with tempfile.TemporaryDirectory(prefix="gpu-bench-") as scratch:
        run = Run(args.device, args.staging, result, Path(scratch), args.runner)
        ok = stage(run)
        if not (run.staging / MANIFEST).exists():
            return 1
        if args.fork and len(rows) > 1:
            run = replace(run, nursery=Nursery(run.python("gpu.nursery")))
        for row in rows:
            left = sizes["totalSeconds"] - (time.monotonic() - _STARTED)
            ok = run_step(run, row, left) and ok
        if run.nursery is not None:
            run.nursery.close()
    text = table_text(read_lines(result))
    (args.out / "table.txt").write_text(text)
    print(text)
    return 0 if ok else 1


def chosen(rows: list[StepRow], only: str | None) -> list[StepRow]:
    """Raises SystemExit for a name that the table lacks."""
    names = None if only is None else only.split(",")
    unknown = sorted(set(names or ()) - {row.name for row in rows})
    if unknown:
        raise SystemExit(f"there is no step {', '.join(unknown)}; steps: {', '.join(row.name for row in rows)}")
    return [row for row in rows if names is None or row.name in names]


def stage(run: Run) -> bool:
    """Checks what was staged and unpacks its wheels for the steps."""
    found = problems(run.staging, run.device)
    wheels = sorted((run.staging / "wheels").glob("*.whl"))
    if wheels:
        site = run.scratch / "site"
        os.environ["PYTHONPATH"] = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(site)])
        found += unpack(wheels, site)
    append(run.result, {"step": "staging", "kind": "end", "status": "failed" if found else "ok", "problems": found})
    for line in found:
        print(f"staging: {line}", file=sys.stderr)
    return not found


def unpack(wheels: list[Path], site: Path) -> list[str]:
    command = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--upgrade"]
    done = subprocess.run(
        [sys.executable, *command, "--target", str(site), *map(str, wheels)],
        capture_output=True,
        text=True,
        check=False,
    )
    return [] if done.returncode == 0 else [f"pip: {done.stderr[-TAIL_CHARACTERS:]}"]


def run_step(run: Run, row: StepRow, left: float) -> bool:
    """Whether it ended well, or was not begun for want of time."""
    if left < row.need_seconds:
        reason = f"{left:.0f} s are left, it needs {row.need_seconds:g}"
        append(run.result, {"step": row.name, "kind": "end", "status": "skipped", "reason": reason})
        print(f"{row.name:<24}skipped: {reason}", flush=True)
        return True
    limit, started, log = min(row.limit_seconds, left), time.monotonic(), run.scratch / f"{row.name}.log"
    if run.nursery is not None:
        status = run.nursery.run(row.name, log, limit)
    else:
        with log.open("w") as file:
            process = subprocess.Popen(
                run.python(run.runner, row.name), stdout=file, stderr=file, start_new_session=True
            )
            status = await_process(process, limit)
    seconds = round(time.monotonic() - started, 2)
    line = {"step": row.name, "kind": "end", "status": status, "seconds": seconds, "limitSeconds": round(limit, 1)}
    tail = {} if status == "ok" else {"tail": log.read_text(errors="replace")[-TAIL_CHARACTERS:]}
    append(run.result, {**line, **tail})
    print(f"{row.name:<24}{status:<10}{seconds:>7.1f} s", flush=True)
    return status == "ok"


def await_process(process: subprocess.Popen[bytes], limit: float) -> str:
    """`ok`, `failed` or `timeout`; nothing of it runs on."""
    try:
        return "ok" if process.wait(limit) == 0 else "failed"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(KILL_SECONDS)
        return "timeout"


if __name__ == "__main__":
    sys.exit(main())
