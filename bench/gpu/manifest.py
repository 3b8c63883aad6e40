"""What is in a staging folder, so that a file that was left behind is noticed before any time of a GPU is spent."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

NAME = "manifest.json"
MAX_BYTES = 64 << 20
PACKAGES = Path(__file__).with_name("packages.txt")


def write_manifest(folder: Path, device: str, commit: str) -> None:
    """Raises SystemExit where the folder is larger than what travels."""
    files = {str(path.relative_to(folder)): digest(path) for path in _files(folder)}
    total = sum(path.stat().st_size for path in _files(folder))
    if total > MAX_BYTES:
        raise SystemExit(f"{folder} has {total} bytes; {MAX_BYTES} can be taken along: leave wheels or plans out")
    document = {
        "device": device,
        "commit": commit,
        "totalBytes": total,
        "packages": packages(),
        "files": files,
    }
    (folder / NAME).write_text(json.dumps(document, indent=1) + "\n")
    print(f"{folder}: {len(files)} files, {total / 2**20:.1f} MiB of {MAX_BYTES >> 20}")


def packages() -> dict[str, str]:
    """Name and version of what the worker needs beside PyTorch and transformers."""
    return dict(line.split("==") for line in PACKAGES.read_text().split())


def problems(folder: Path, device: str) -> list[str]:
    """What of a staging folder is missing, changed or for another device."""
    path = folder / NAME
    if not path.exists():
        return [f"{path} is missing: run bench/gpu/prepare.sh first"]
    document = json.loads(path.read_text())
    found = [] if document["device"] == device else [f"{folder} is for {document['device']}, not for {device}"]
    for name, expected in document["files"].items():
        file = folder / name
        if not file.exists():
            found.append(f"{name} is missing from {folder}")
        elif digest(file) != expected:
            found.append(f"{name} is not the file that was staged")
    return found


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
