"""A session without torch: says what it was given, and fails the way a test asks for in `options["data"]`.

`data` is one of ok, nan, slow, full, import, digest, create@RANK, evaluate@RANK, export@RANK, and raise, exit, hang,
child or once @RANK:STEP; child leaves a grandchild running, once ends where `armed` is among the checkpoints, which it
then is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fpdt.errors import StopAgreed
from fpdt.wire import protocol, telemetry_batch


class EchoSession:
    def __init__(self, header: bytes, prose: bytes, columns: Mapping[str, bytes], options: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(header)
        for column in columns.values():
            digest.update(zlib.decompress(column))
        self.digest = digest.hexdigest()
        self.device = json.loads(header)["device"]
        json.loads(prose)
        self.versions = {"python": sys.version.split()[0]}
        self._export = options["export"]
        self._rank = int(os.environ["RANK"])
        self.kernels = {"attn": "cpu_flash", "copies": "native" if self._rank == 0 else "events"}
        self.load_pool_bytes = {"hbm": 500 + self._rank}
        self._checkpoint = options["checkpoint"] or {}
        self.next_step, self.resumed, self.remarks = self._newest(options["resume"])
        self._saved: list[dict[str, Any]] = []
        self._is_stopping = False
        self.communicator_bytes = 70 + self._rank
        self._fault, _, where = str(options["data"]).partition("@")
        self._where = where
        if self._fault == "import":
            importlib.import_module("torch_that_is_not_installed")
        if self._fault == "digest":
            self.digest = "0" * 64
        if self._fault == "create" and where == str(self._rank):
            raise RuntimeError("no room for the arena")

    def run_step(self, step: int) -> dict[str, Any]:
        if self._is_left_out(step):
            raise StopAgreed
        if self._where == f"{self._rank}:{step}":
            self._fail(step)
        if self._fault == "slow":
            time.sleep(0.2)
        non_finite = ["loss"] if self._fault == "nan" else []
        record = telemetry_batch.OpRecord(
            step=step,
            section="layerForward",
            layer=0,
            op=0,
            op_kind="attn",
            stream="compute",
            start_us=0,
            duration_us=10,
            bytes=0,
        )
        return {
            "loss": None if non_finite else 10.0 - step,
            "learning_rate": 1e-4,
            "gradient_norm": 0.75,
            "seconds": 0.5,
            "num_tokens": 128,
            "loss_scale": 1.0,
            "skipped": False,
            "pool_bytes": {"hbm": 1000 + self._rank, "host": 0},
            "memory_measured": True,
            "copied_bytes": {"h2d": 4, "d2h": 8},
            "by_kind": {"attn": protocol.KindTime(count=2, seconds=0.25)},
            "idle_seconds": 0.25,
            "ops_timed": True,
            "non_finite": non_finite,
            "non_finite_place": f"rank {self._rank}, position 3" if non_finite else None,
            "records": [record] * 300,
        }

    def request_stop(self) -> None:
        self._is_stopping = True

    def _is_left_out(self, step: int) -> bool:
        """Whether no rank runs a step. The first to begin it says so for all, as a collective does for those of a
        session; only what has steps of some length is stopped between them."""
        if self._fault != "slow" or not self._checkpoint:
            return self._is_stopping
        said = Path(self._checkpoint["folder"]) / f"said-{step}"
        mine = said.with_name(f"{said.name}-{self._rank}")
        mine.write_text("stop" if self._is_stopping else "run")
        with contextlib.suppress(FileExistsError):
            said.hardlink_to(mine)
        return said.read_text() == "stop"

    def save_checkpoint(self, step: int, *, wait: bool) -> None:
        """The folder of a step is all that there is of it. The last rank makes it: the one that tests let die."""
        folder = Path(self._checkpoint["folder"]) / str(step)
        problem = "no space left" if self._fault == "full" else None
        if problem is None and self._rank == int(os.environ["WORLD_SIZE"]) - 1:
            folder.mkdir(parents=True, exist_ok=True)
        self._saved.append(
            {"step": step, "folder": str(folder), "bytes": 64, "seconds": 0.5, "blocked_seconds": 0.25 + self._rank}
            | {"problem": problem}
        )

    def take_saved(self) -> list[dict[str, Any]]:
        saved, self._saved = self._saved, []
        return saved

    def _newest(self, resume: Mapping[str, Any] | None) -> tuple[int, str | None, list[str]]:
        if resume is None:
            return 0, None, []
        folder = Path(self._checkpoint["folder"])
        steps = [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
        if not resume["newest"]:
            steps = [int(Path(resume["path"]).name)]
        if not steps:
            return 0, None, ["a fresh start"]
        return max(steps), str(folder / str(max(steps))), [f"goes on at step {max(steps)}"]

    def evaluate(self, note: Callable[[int], None]) -> dict[str, Any]:
        if self._fault == "evaluate" and self._where == str(self._rank):
            raise ValueError("no such token in the held-out data")
        note(0)
        return {"loss": 2.5, "num_tokens": 256, "num_sequences": 4, "seconds": 0.5 + self._rank, "non_finite": []}

    def export_model(self) -> dict[str, Any]:
        if self._fault == "export" and self._where == str(self._rank):
            raise OSError("no space left")
        return {"folder": f"{self._export} of rank {self._rank}", "num_weights": 2, "bytes": 8}

    def close(self) -> None:
        print(f"echo session of rank {self._rank} closed", flush=True)

    def _fail(self, step: int) -> None:
        if self._fault == "raise":
            raise ValueError(f"no such token in step {step}")
        if self._fault == "once":
            armed = Path(self._checkpoint["folder"]) / "armed"
            if armed.exists():
                armed.rmdir()
                os._exit(17)
        if self._fault == "exit":
            os._exit(17)
        if self._fault == "hang":
            print("hanging", flush=True)
            threading.Event().wait()
        if self._fault == "child":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            print(f"grandchild {child.pid}", flush=True)


def create(header: bytes, prose: bytes, columns: Mapping[str, bytes], options: Mapping[str, Any]) -> EchoSession:
    return EchoSession(header, prose, columns, options)
