"""Faults from outside: a module that is patched when a process imports it, a plan whose ops wait for wrong ones."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import numpy as np

from fpdt.plan import read_frames
from fpdt.plan.columns import digest_of, inflate_columns
from fpdt.plan.header import parse_header

SITE = """
import importlib.util
import sys


class Planter:
    def find_spec(self, name, path=None, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            {patch}

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Planter())
"""


def plant(folder: Path, module: str, patch: str) -> Path:
    """A folder for PYTHONPATH; `patch` is a statement about `module` once it has been imported."""
    path = folder / "planted"
    path.mkdir()
    (path / "sitecustomize.py").write_text(SITE.format(module=module, patch=patch))
    return path


def wrong_waits(path: Path) -> None:
    """Every op of the plan that waits for one op waits for the first op of its section instead."""
    frames = read_frames(path)
    header = parse_header(frames.header)
    raw = inflate_columns(header.columns, frames.columns)
    offsets, waits = np.frombuffer(raw["opWaits"], dtype="<i4"), np.frombuffer(raw["wait"], dtype="<i4").copy()
    waits[offsets[:-1][np.diff(offsets) == 1]] = 0
    raw["wait"] = waits.tobytes()
    document = json.loads(path.read_text())
    document["columns"]["wait"] = base64.b64encode(zlib.compress(raw["wait"])).decode()
    document["digest"] = digest_of(frames.header, raw)
    path.write_text(json.dumps(document))
