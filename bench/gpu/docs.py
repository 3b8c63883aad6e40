"""`npm run docs:performance [-- --check]`: writes docs/performance.md from bench/results/gpu.jsonl, or checks it.

The file of results is result.jsonl of one or more runs on a GPU, one after the other. Until there is one, the document
says so; a dry run's is refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from gpu.lines import read_lines
from gpu.table import of_kind, table_text

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "bench" / "results" / "gpu.jsonl"
DOCUMENT = ROOT / "docs" / "performance.md"
TITLE = "# Performance on a GPU\n\nWritten by `npm run docs:performance` from bench/results/gpu.jsonl; do not edit.\n\n"
NEVER_RUN = """Nothing has run on a GPU yet: there is no result. `bash bench/gpu/prepare.sh`, where a network
and Node are, and then `bash bench/gpu/run.sh`, on a machine with one H100 or H200, make one
(bench/gpu/README.md). Times of GPUs elsewhere in this repository are predictions.
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="npm run docs:performance --")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the document is not current")
    is_check = parser.parse_args(arguments).check
    text = document(read_lines(RESULT))
    if is_check:
        is_current = DOCUMENT.exists() and DOCUMENT.read_text() == text
        print("" if is_current else f"{DOCUMENT} is not what {RESULT} says: npm run docs:performance", file=sys.stderr)
        return 0 if is_current else 1
    DOCUMENT.write_text(text)
    return 0


def document(lines: list[dict[str, Any]]) -> str:
    """Raises SystemExit for lines of a dry run."""
    if not lines:
        return TITLE + NEVER_RUN
    begun = list(of_kind(lines, "begin"))
    dry = sorted({run["device"] for run in begun} - {"cuda"})
    if not begun:
        raise SystemExit(f"{RESULT} does not say of what run it is: it lacks the line of kind begin")
    if dry:
        raise SystemExit(f"{RESULT} is of a dry run ({', '.join(dry)}): only runs on a GPU are documented")
    facts = [*surroundings(lines), *(f"Command: `{run['command'].strip()}`, {run['date']}" for run in begun)]
    listed = "\n".join(f"- {fact}" for fact in facts)
    return f"{TITLE}{listed}\n\n```\n{table_text(lines)}```\n"


def surroundings(lines: list[dict[str, Any]]) -> list[str]:
    """Of the first step that told them."""
    for line in of_kind(lines, "environment"):
        versions = ", ".join(f"{name} {version}" for name, version in line["versions"].items())
        cuda = f"CUDA {line.get('cuda')}, cuDNN {line.get('cudnn')}"
        return [f"Hardware: {line['hardware']}", f"Commit: {line['commit']}", f"Versions: {versions}, {cuda}"]
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
