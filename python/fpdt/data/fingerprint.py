"""What data is, whatever its path: for resuming on the same data, and for finding what was prepared of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

SAMPLES = 64
SAMPLE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Fingerprint:
    """`size` in bytes and a digest; of a file as it is, or of the tokens that were made of a source."""

    file: str
    """Name without folder, for errors: data that was moved is the same data."""
    size: int
    digest: str

    def to_json(self) -> dict[str, str | int]:
        return asdict(self)

    def difference(self, other: Mapping[str, object]) -> str | None:
        """What differs from a fingerprint in JSON, in words; None where nothing does but the file's name."""
        parts = [
            f"{name} {other.get(name)} then, {value} now"
            for name, value in (("size", self.size), ("digest", self.digest))
            if other.get(name) != value
        ]
        return "; ".join(parts) or None


def of_files(*paths: Path) -> Fingerprint:
    """Of the sizes of files and of their content: all of a small one, SAMPLES evenly spaced pieces of a large one."""
    digest, size = hashlib.sha256(), 0
    for path in paths:
        size += path.stat().st_size
        digest.update(sampled(path))
    return Fingerprint(paths[0].name, size, digest.hexdigest())


def sampled(path: Path) -> bytes:
    """Digest of a file's size and sampled content; a terabyte takes as long as 4 MiB."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= SAMPLES * SAMPLE_BYTES:
            digest.update(file.read())
            return digest.digest()
        for number in range(SAMPLES):
            file.seek(number * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()
