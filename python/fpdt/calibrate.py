"""Measures this machine and writes the ClusterSpec that the planner reads as `--cluster`.

    python -m fpdt.calibrate --model model.json --ranks 2 --seq-len 16384 --chunk-tokens 2048 --output cluster.json
    python -m fpdt.calibrate --compare cluster.json

As many gloo ranks as the run will have work at the same time, since they share caches and memory. Everything, imports
included, takes about `--seconds`; a slow machine gets fewer repeats, never a wrong number.

What was measured on is kept beside the ClusterSpec, in `cluster.shapes.json`. `--compare` measures the kernels of a
layer there again and prints {"factor": how much faster this machine is now}: below 1 it is slower.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpdt.errors import FpdtError
from fpdt.wire.exits import exit_now

_STARTED = time.perf_counter()
_RESERVE_SECONDS = 1.5
"""For joining the ranks and writing the file."""
_MEMORY_SHARE = 0.8
"""Of the memory that is available now, shared by the two pools of all ranks."""
_DISK_SHARE = 0.8
"""Of the space that is free now, shared by all ranks."""
_SECONDS = 10.0
_COMPARE_SECONDS = 4.5


class CalibrationError(Exception):
    """Something the user can change; the message says what."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        if options.compare is None:
            calibrate(options)
        else:
            print(json.dumps({"factor": compare(options.compare, options.seconds or _COMPARE_SECONDS)}), flush=True)
    except CalibrationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fpdt.calibrate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, help="Hugging Face config.json")
    parser.add_argument("--ranks", type=int, default=2, help="ranks of the run, all on this machine")
    parser.add_argument("--seq-len", type=int, default=16384, help="tokens of a sequence")
    parser.add_argument("--chunk-tokens", type=int, default=2048, help="tokens of a global chunk")
    parser.add_argument("--disk-folder", type=Path, help="folder on a disk that the run may use as a pool")
    parser.add_argument(
        "--seconds", type=float, help="limit for everything, imports included; default 10, to compare 4.5"
    )
    parser.add_argument("--output", type=Path, help="cluster.json to write")
    parser.add_argument(
        "--compare", type=Path, metavar="CLUSTER", help="measure again what this cluster.json was made of"
    )
    options = parser.parse_args(arguments)
    if (options.compare is None) == (options.model is None or options.output is None):
        parser.error("give --model and --output, or --compare")
    return options


def calibrate(options: argparse.Namespace) -> None:
    """Writes the ClusterSpec of `options.ranks` ranks on this machine. Raises CalibrationError."""
    config = read_config(options.model)
    check(options, config)
    shapes = shapes_of(options, config)
    memory, disk = available_bytes(), free_disk_bytes(options.disk_folder)
    rates = measure(shapes, options.seconds or _SECONDS, disk_folder=options.disk_folder)
    spec = cluster_spec(options, config, rates, memory, disk)
    write(shapes_path(options.output), {"kind": "calibrationShapes", **shapes})
    write(options.output, spec)
    taken = time.perf_counter() - _STARTED
    print(f"calibrated {spec['name']} in {taken:.1f} s: {describe(spec['rates'])}", file=sys.stderr)


def compare(cluster: Path, seconds: float) -> float:
    """Speed of a layer's kernels now over that of `cluster`, measured on the same shapes. Raises CalibrationError."""
    spec, shapes = read_json(cluster), read_json(shapes_path(cluster))
    kind = shapes.pop("kind", None)
    if spec.get("ratesProvenance") != "measured" or kind != "calibrationShapes":
        raise CalibrationError(f"--compare: {cluster} was not written by a calibration")
    now = measure(shapes, seconds, only_kernels=True)
    from fpdt.measure import rates
    from fpdt.measure.probe import Shapes

    made = Shapes(**shapes)
    return rates.layer_seconds(made, spec["rates"]) / rates.layer_seconds(made, now)


def measure(
    shapes: Mapping[str, int], seconds: float, *, disk_folder: Path | None = None, only_kernels: bool = False
) -> dict[str, float]:
    """The rates of a ClusterSpec and peakFlops, or those of a layer's kernels; `seconds` from the program's start."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from fpdt.measure import rates
    from fpdt.measure.on_ranks import RankFailedError, measure_on_ranks
    from fpdt.measure.probe import Shapes

    made = Shapes(**shapes)

    def on_rank(left: float) -> dict[str, float]:
        if only_kernels:
            return rates.measure_kernel_rates(made, 0.8 * left)
        found = rates.measure_rates(made, 0.8 * left, disk_folder)
        return {**found, "peakFlops": rates.peak_matmul_flops()}

    try:
        return measure_on_ranks(made.num_ranks, _STARTED + seconds - _RESERVE_SECONDS, on_rank)
    except (RankFailedError, FpdtError) as error:
        raise CalibrationError(str(error)) from error


def cluster_spec(
    options: argparse.Namespace, config: Mapping[str, Any], rates: Mapping[str, float], memory: int, disk: int
) -> dict[str, Any]:
    from fpdt.devices.file_pool import ALIGNMENT_BYTES

    share = int(memory * _MEMORY_SHARE / (2 * options.ranks))
    return {
        "kind": "cluster",
        "name": f"{options.ranks}x cpu",
        "device": "cpu",
        "numRanks": options.ranks,
        "ranksPerNode": options.ranks,
        "hbmBytes": share,
        "hostBytes": share,
        "diskBytes": int(disk * _DISK_SHARE / options.ranks) // ALIGNMENT_BYTES * ALIGNMENT_BYTES,
        "overheads": [],
        "rates": {name: rate for name, rate in rates.items() if name != "peakFlops"},
        "ratesProvenance": "measured",
        "ratesSource": source(options, config),
        "peakFlops": rates["peakFlops"],
    }


def shapes_path(cluster: Path) -> Path:
    return cluster.with_name(f"{cluster.stem}.shapes.json")


def read_json(path: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CalibrationError(f"--compare: cannot read {path}: {error}; calibrate again") from error
    return dict(found)


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
    heads = int(config["num_attention_heads"])
    if not 1 <= options.ranks <= heads:
        raise CalibrationError(f"--ranks {options.ranks}: the model's {heads} query heads are for 1 to {heads} ranks")
    if options.chunk_tokens < 1 or options.chunk_tokens % options.ranks != 0:
        raise CalibrationError(f"--chunk-tokens {options.chunk_tokens} does not divide over {options.ranks} ranks")
    if options.seq_len < options.chunk_tokens:
        raise CalibrationError(f"--seq-len {options.seq_len} is shorter than a chunk of {options.chunk_tokens} tokens")


def kv_heads(config: Mapping[str, Any]) -> int:
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def shapes_of(options: argparse.Namespace, config: Mapping[str, Any]) -> dict[str, int]:
    """The fields of probe.Shapes."""
    heads, hidden, width = config["num_attention_heads"], config["hidden_size"], config["intermediate_size"]
    head_dim = int(config.get("head_dim") or hidden // heads)
    kv = kv_heads(config)
    layer = 2 * hidden + 2 * hidden * heads * head_dim + 2 * hidden * kv * head_dim + 3 * hidden * width
    embeddings = (1 if config.get("tie_word_embeddings") else 2) * config["vocab_size"] * hidden
    return {
        "hidden": hidden,
        "mlp_width": width,
        "num_heads": heads,
        "num_kv_heads": kv,
        "head_dim": head_dim,
        "num_layers": config["num_hidden_layers"],
        "num_parameters": config["num_hidden_layers"] * layer + embeddings + hidden,
        "chunk_tokens": options.chunk_tokens,
        "num_chunks": max(1, options.seq_len // options.chunk_tokens),
        "num_ranks": options.ranks,
    }


def available_bytes() -> int:
    """Memory that could be used now without swapping; a container's limit where it is lower."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in text.splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (value := limit.read_text(encoding="ascii").strip()).isdigit():
        return min(available, int(value))
    return available


def free_disk_bytes(folder: Path | None) -> int:
    if folder is None:
        return 0
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise CalibrationError(f"--disk-folder: cannot use {folder}: {error.strerror}") from error


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
    disk = f", disk {giga['diskReadBytes']}/{giga['diskWriteBytes']}" if rates["diskReadBytes"] else ""
    copies = f"copies {giga['h2dBytes']}/{giga['d2hBytes']}"
    return (
        f"matmul {giga['matmulFlops']}, attention {attention} GFLOP/s, "
        f"memory {giga['memoryBytes']}, {copies}{disk}, exchange {giga['commBytes']} GB/s, "
        f"op {1e6 * rates['hostSecondsPerOp']:.2g} us, kernel {1e6 * rates['hostSecondsPerKernel']:.2g} us"
    )


def write(path: Path, spec: Mapping[str, Any]) -> None:
    """The file is there whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(spec, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    # gloo's threads may abort the process when it unwinds.
    exit_now(main())
