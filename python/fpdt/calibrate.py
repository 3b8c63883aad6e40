"""Measures this machine and writes the ClusterSpec that the planner reads as `--cluster`.

    python -m fpdt.calibrate --model model.json --ranks 2 --seq-len 16384 --chunk-tokens 2048 --output cluster.json

As many gloo ranks as the run will have work at the same time, since they share caches and memory. Everything, imports
included, takes at most `--seconds`; a slow machine gets fewer repeats, never a wrong number.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpdt.wire import lifeline

_STARTED = time.perf_counter()
_RESERVE_SECONDS = 1.5
"""For joining the ranks and writing the file."""
_MIN_SECONDS = 1.0
_MEMORY_SHARE = 0.8
"""Of the memory that is available now, shared by the two pools of all ranks."""


class CalibrationError(Exception):
    """Something the user can change; the message says what."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        spec = calibrate(options)
    except CalibrationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write(options.output, spec)
    taken = time.perf_counter() - _STARTED
    print(f"calibrated {spec['name']} in {taken:.1f} s: {describe(spec['rates'])}", file=sys.stderr)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fpdt.calibrate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face config.json")
    parser.add_argument("--ranks", type=int, default=2, help="ranks of the run, all on this machine")
    parser.add_argument("--seq-len", type=int, default=16384, help="tokens of a sequence")
    parser.add_argument("--chunk-tokens", type=int, default=2048, help="tokens of a global chunk")
    parser.add_argument("--seconds", type=float, default=10.0, help="limit for everything, imports included")
    parser.add_argument("--output", type=Path, required=True, help="cluster.json to write")
    return parser.parse_args(arguments)


def calibrate(options: argparse.Namespace) -> dict[str, Any]:
    """The ClusterSpec of `options.ranks` ranks on this machine. Raises CalibrationError."""
    config = read_config(options.model)
    check(options, config)
    memory = available_bytes()
    rates = measure_on_ranks(options, config)
    peak = rates.pop("peakFlops")
    share = int(memory * _MEMORY_SHARE / (2 * options.ranks))
    return {
        "kind": "cluster",
        "name": f"{options.ranks}x cpu",
        "device": "cpu",
        "numRanks": options.ranks,
        "ranksPerNode": options.ranks,
        "hbmBytes": share,
        "hostBytes": share,
        "overheads": [],
        "rates": rates,
        "ratesProvenance": "measured",
        "ratesSource": source(options, config),
        "peakFlops": peak,
    }


def read_config(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CalibrationError(f"--model: cannot read {path}: {error}") from error
    required = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
    missing = [key for key in required if not isinstance(config, dict) or key not in config]
    if missing:
        raise CalibrationError(f"--model: {path} has no {', '.join(missing)}; expected a Hugging Face config.json")
    assert isinstance(config, dict)
    return config


def check(options: argparse.Namespace, config: Mapping[str, Any]) -> None:
    heads = kv_heads(config)
    if options.ranks < 1 or heads % options.ranks != 0:
        raise CalibrationError(f"--ranks {options.ranks} does not divide the model's {heads} key/value heads")
    if options.chunk_tokens < 1 or options.chunk_tokens % options.ranks != 0:
        raise CalibrationError(f"--chunk-tokens {options.chunk_tokens} does not divide over {options.ranks} ranks")
    if options.seq_len < options.chunk_tokens:
        raise CalibrationError(f"--seq-len {options.seq_len} is shorter than a chunk of {options.chunk_tokens} tokens")


def kv_heads(config: Mapping[str, Any]) -> int:
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def measure_on_ranks(options: argparse.Namespace, config: Mapping[str, Any]) -> dict[str, float]:
    """Forks a process per rank, so that torch is imported once; the mean of their rates comes back through gloo."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from fpdt.measure import rates

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fpdt-calibrate-") as folder:
        meeting = f"file://{folder}/ranks"
        children = [fork_rank(options, config, meeting, rank, rates) for rank in range(1, options.ranks)]
        try:
            result = measure_here(options, config, meeting, 0, rates)
        finally:
            statuses = [os.waitpid(pid, 0)[1] for pid in children]
    if any(statuses):
        raise CalibrationError(f"a rank failed with exit status {max(statuses)}; its output is above")
    return result


def fork_rank(options: argparse.Namespace, config: Mapping[str, Any], meeting: str, rank: int, rates: Any) -> int:
    """The child measures and exits; only the parent returns, with the child's process id."""
    pid = os.fork()
    if pid > 0:
        return pid
    status = 1
    try:
        lifeline.die_with_parent()
        measure_here(options, config, meeting, rank, rates)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def measure_here(
    options: argparse.Namespace, config: Mapping[str, Any], meeting: str, rank: int, rates: Any
) -> dict[str, float]:
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=options.ranks)
    left = options.seconds - _RESERVE_SECONDS - (time.perf_counter() - _STARTED)
    budget = torch.tensor([max(left, _MIN_SECONDS)])
    dist.all_reduce(budget, op=dist.ReduceOp.MIN)
    found = rates.measure_rates(shapes_of(options, config, rates), 0.8 * float(budget[0]))
    found["peakFlops"] = rates.peak_matmul_flops()
    names = sorted(found)
    total = torch.tensor([found[name] for name in names], dtype=torch.float64)
    dist.all_reduce(total)
    dist.destroy_process_group()
    return {name: float(value) / options.ranks for name, value in zip(names, total, strict=True)}


def shapes_of(options: argparse.Namespace, config: Mapping[str, Any], rates: Any) -> Any:
    heads, hidden, width = config["num_attention_heads"], config["hidden_size"], config["intermediate_size"]
    head_dim = int(config.get("head_dim") or hidden // heads)
    kv = kv_heads(config)
    layer = 2 * hidden + 2 * hidden * heads * head_dim + 2 * hidden * kv * head_dim + 3 * hidden * width
    embeddings = (1 if config.get("tie_word_embeddings") else 2) * config["vocab_size"] * hidden
    return rates.Shapes(
        hidden=hidden,
        mlp_width=width,
        num_heads=heads,
        num_kv_heads=kv,
        head_dim=head_dim,
        num_layers=config["num_hidden_layers"],
        num_parameters=config["num_hidden_layers"] * layer + embeddings + hidden,
        chunk_tokens=options.chunk_tokens,
        num_chunks=max(1, options.seq_len // options.chunk_tokens),
        num_ranks=options.ranks,
    )


def available_bytes() -> int:
    """Memory that could be used now without swapping; a container's limit where it is lower."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in text.splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (value := limit.read_text(encoding="ascii").strip()).isdigit():
        return min(available, int(value))
    return available


def source(options: argparse.Namespace, config: Mapping[str, Any]) -> str:
    shapes = f"hidden {config['hidden_size']}, {options.seq_len} tokens in chunks of {options.chunk_tokens}"
    return f"fpdt.calibrate, {options.ranks} busy gloo ranks on {cpu_name()}, {shapes}"


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def describe(rates: Mapping[str, float]) -> str:
    giga = {name: f"{rates[name] / 1e9:.3g}" for name in rates}
    attention = f"{giga['attentionForwardFlops']}/{giga['attentionBackwardFlops']}"
    return (
        f"matmul {giga['matmulFlops']}, attention {attention} GFLOP/s, "
        f"memory {giga['memoryBytes']}, copies {giga['h2dBytes']}/{giga['d2hBytes']}, exchange {giga['commBytes']} GB/s"
    )


def write(path: Path, spec: Mapping[str, Any]) -> None:
    """The file is there whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(spec, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # gloo's threads may abort the process when it unwinds.
    os._exit(code)
