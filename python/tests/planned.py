"""Plans for tests, made by the real planner, and ranks started the way a user starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fpdt.plan import read_frames

ROOT = Path(__file__).resolve().parents[2]
RANK_TIMEOUT_SECONDS = 150.0

MODEL: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
ZERO_3: Mapping[str, Any] = {
    "stage": 3,
    "stage3_param_persistence_threshold": 0,
    "stage3_max_live_parameters": 0,
    "stage3_max_reuse_distance": 0,
    "stage3_prefetch_bucket_size": 0,
    "reduce_bucket_size": 4096,
}


def make_plan(
    folder: Path,
    *options: str,
    model: Mapping[str, Any] = MODEL,
    zero: Mapping[str, Any] = ZERO_3,
    accumulation_steps: int = 1,
    fp16: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    packing: bool = False,
    evaluate: bool = False,
) -> Path:
    """plan.json in `folder`; `options` are those of `fpdt plan`, with small defaults.

    `more`: other keys of the ds_config. With `fp16`, a section of it, of `--gpus` CPUs that DeepSpeed would train on in
    fp16.
    """
    deepspeed = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation_steps,
        "gradient_clipping": 1.0,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
        "zero_optimization": zero,
        **({} if fp16 is None else {"fp16": fp16}),
        **(more or {}),
    }
    (folder / "model.json").write_text(json.dumps(model))
    (folder / "ds_config.json").write_text(json.dumps(deepspeed))
    defaults = {"--gpus": "1", "--gpu": "cpu", "--seq-len": "96", "--chunks": "2", "--dtype": "float32", "--steps": "2"}
    given = {**defaults, **dict(zip(options[::2], options[1::2], strict=True))}
    if fp16 is not None:
        cluster = {"gpus": int(given.pop("--gpus")), "gpu": given.pop("--gpu"), "float16": True}
        (folder / "cluster.json").write_text(json.dumps(cluster))
        given.update({"--cluster": "cluster.json", "--dtype": "float16"})
    flags = [name for name, is_given in (("--packing", packing), ("--evaluate", evaluate)) if is_given]
    flat = [word for pair in given.items() for word in pair] + flags
    files = ["--model", "model.json", "--deepspeed", "ds_config.json", "--output", "plan.json"]
    run_planner(folder, *files, *flat)
    return folder / "plan.json"


def run_planner(folder: Path, *options: str) -> None:
    """`fpdt plan` in a folder."""
    done = subprocess.run([*_planner(), "plan", *options], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@cache
def _planner() -> list[str]:
    """Compiled from the sources as they are: hundreds of plans start four times as fast as from TypeScript."""
    subprocess.run(["node", str(ROOT / "scripts/setup.mjs"), "--for", "plan"], check=True)
    return ["node", str(ROOT / "dist/cli/main.js")]


def peak_instant(path: Path) -> str:
    """The instant of that peak on the device."""
    return str(json.loads(read_frames(path).prose)["memory"]["pools"][0]["peakInstant"])


def load_bytes(path: Path) -> dict[str, int]:
    """What a plan says that start-up needs, by pool."""
    pools = json.loads(read_frames(path).prose)["memory"]["pools"]
    return {pool["pool"]: pool["load"]["totalBytes"] for pool in pools}


def peak_bytes(path: Path) -> dict[str, int]:
    """What a plan says that a run needs, by pool."""
    return {pool["pool"]: pool["peakBytes"] for pool in json.loads(read_frames(path).prose)["memory"]["pools"]}


def write_data(folder: Path, num_bytes: int = 4096) -> Path:
    """Bytes that repeat with no period a sequence could fall into."""
    path = folder / "data.txt"
    path.write_bytes(bytes((i * i * 7 + i // 3) % 251 for i in range(num_bytes)))
    return path


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The JSON lines of rank 0."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


def run_ranks(num_ranks: int, *options: str, environment: Mapping[str, str] | None = None) -> list[Finished]:
    """`python -m fpdt.worker` once per rank, `{rank}` in an option being its number; all are gone when this returns."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ranks = [_start(rank, num_ranks, port, options, environment or {}) for rank in range(num_ranks)]
    try:
        return [_finish(rank) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def _start(
    rank: int, num_ranks: int, port: str, options: Sequence[str], environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    variables = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "fpdt.worker", *(option.replace("{rank}", str(rank)) for option in options)],
        cwd=ROOT / "python",
        env={**os.environ, **variables, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(rank: subprocess.Popen[str]) -> Finished:
    out, err = rank.communicate(timeout=RANK_TIMEOUT_SECONDS)
    return Finished(rank.returncode, out, err)
