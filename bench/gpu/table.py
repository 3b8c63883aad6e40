"""The lines of a run as a table: for the end of a run, and for docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Line = dict[str, Any]
Row = tuple[str, ...]
GIB = 2**30


def table_text(lines: list[Line]) -> str:
    """Of all lines of one or more runs; a step that ran again stands there as it ended last."""
    parts = [
        block("step|status|seconds|checks", step_rows(lines)),
        block("attention kernel|rows|heads/kv|d|forward TFLOP/s|backward TFLOP/s", attention_rows(lines)),
        block("training|tokens|layers|step s|planned|error|HBM GiB|planned|retries", train_rows(lines)),
        block("kind of op|tokens|measured s|planned s|error", kind_rows(lines)),
        block("copies by|plan|tokens|step s|remark", copy_rows(lines)),
        block("op|kernels|rows|s|of auto's|makes MiB", op_rows(lines)),
        block("peer|tokens|forward and backward s|peak GiB|", peer_rows(lines)),
        block("copies of|to the device GB/s|back|both", link_rows(lines)),
        block("locked memory|GiB|threads|touch s|lock s", register_rows(lines)),
        block("beside attention|priority|side ends s|all ends s", overlap_rows(lines)),
        "".join(f"failed: {line}\n" for line in failures(lines)),
    ]
    return "\n".join(part for part in parts if part)


def block(title: str, rows: Iterator[Row]) -> str:
    """Empty where there are no rows."""
    table = [tuple(title.split("|")), *rows]
    if len(table) == 1:
        return ""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    texts = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([texts[0], "  ".join("-" * width for width in widths), *texts[1:]]) + "\n"


def of_kind(lines: list[Line], kind: str) -> Iterator[Line]:
    return (line for line in lines if line["kind"] == kind)


def step_rows(lines: list[Line]) -> Iterator[Row]:
    ends = {line["step"]: line for line in of_kind(lines, "end")}
    for name, end in ends.items():
        checks = [line for line in of_kind(lines, "check") if line["step"] == name]
        held = sum(line["ok"] for line in checks)
        seconds = f"{end['seconds']:.1f}" if "seconds" in end else end.get("reason", "")
        yield name, end["status"], seconds, f"{held} of {len(checks)}" if checks else ""


def attention_rows(lines: list[Line]) -> Iterator[Row]:
    for line in of_kind(lines, "attentionRate"):
        shape = (str(line["rows"]), f"{line['heads']}/{line['kvHeads']}", str(line["headDim"]))
        yield line["kernel"], *shape, number(line["forwardTflops"], ".4g"), number(line["backwardTflops"], ".4g")


def train_rows(lines: list[Line]) -> Iterator[Row]:
    for line in of_kind(lines, "train"):
        measured, planned = line["seconds"][-1], line["plannedSeconds"]
        pool = next(iter(line["plannedPoolBytes"].values()))
        yield (
            training_name(line),
            str(line["seqLen"]),
            str(line["numLayers"]),
            number(measured, ".3f"),
            number(planned, ".3f"),
            error(planned, measured),
            peak_text(line),
            f"{pool / GIB:.2f}",
            str(line["allocator"].get("allocRetries", "")),
        )


def training_name(line: Line) -> str:
    strategy, kernels = line["strategy"], line.get("kernels", "auto")
    beside = "" if kernels == "auto" else f", kernels {kernels}"
    return f"fpdt, {strategy['policy']}, {strategy['numChunks']} chunks, {line['kernel']}{beside}"


def op_rows(lines: list[Line]) -> Iterator[Row]:
    """Ops by what is asked of the kernels beside attention, against those that a plan takes by itself."""
    rows = list(of_kind(lines, "kernels"))
    auto = {(line["plan"], line["op"]): line["seconds"] for line in rows if line["kernels"] == "auto"}
    for line in rows:
        own = auto.get((line["plan"], line["op"]))
        against_auto = f"{line['seconds'] / own:.3f}" if own and line["seconds"] else ""
        scratch = f"{line['scratchBytes'] / 2**20:.1f}"
        yield line["op"], line["kernels"], str(line["rows"]), number(line["seconds"], ".4g"), against_auto, scratch


def copy_rows(lines: list[Line]) -> Iterator[Row]:
    for line in of_kind(lines, "copyMode"):
        remark = "; ".join(line["remarks"])
        yield line["mode"], line["plan"], str(line["seqLen"]), number(line["seconds"][-1], ".4g"), remark


def kind_rows(lines: list[Line]) -> Iterator[Row]:
    """Those that are a hundredth of a step or more."""
    for line in of_kind(lines, "train"):
        for kind, found in sorted(line["byKind"].items(), key=lambda item: -item[1]["measured"]):
            if found["measured"] >= (line["seconds"][-1] or 0.0) / 100:
                seconds = number(found["measured"], ".4f"), number(found["planned"], ".4f")
                yield kind, str(line["seqLen"]), *seconds, error(found["planned"], found["measured"])


def peer_rows(lines: list[Line]) -> Iterator[Row]:
    for line in of_kind(lines, "peer"):
        seconds = "out of memory" if "outOfMemory" in line else number(line["seconds"][-1], ".3f")
        yield line["peer"], str(line["seqLen"]), seconds, peak_text(line), against(lines, line)
    for line in of_kind(lines, "layer"):
        seconds = " and ".join(number(line[name], ".3f") for name in ("forwardSeconds", "backwardSeconds"))
        text = f"one attention block, chunks of {line['chunkTokens']}"
        yield line["peer"], str(line["seqLen"]), seconds, peak_text(line), text


def link_rows(lines: list[Line]) -> Iterator[Row]:
    for line in of_kind(lines, "links"):
        rates = (number(line[name] and line[name] / 1e9, ".4g") for name in ("h2dBytes", "d2hBytes", "duplexBytes"))
        yield f"{line['copyBytes'] / 2**20:g} MiB", *rates


def register_rows(lines: list[Line]) -> Iterator[Row]:
    for line in of_kind(lines, "register"):
        for name, found in line.items():
            if name.startswith("threads"):
                times = number(found["touchSeconds"], ".3f"), number(found["registerSeconds"], ".3f")
                yield line["memory"], f"{line['bytes'] / GIB:g}", name.removeprefix("threads"), *times


def overlap_rows(lines: list[Line]) -> Iterator[Row]:
    for line in of_kind(lines, "overlapAlone"):
        yield "nothing", "", number(line["insideSeconds"], ".4f"), number(line["attentionSeconds"], ".4f")
    for line in of_kind(lines, "overlap"):
        yield line["side"], str(line["priority"]), number(line["sideSeconds"], ".4f"), number(line["allSeconds"], ".4f")


def failures(lines: list[Line]) -> Iterator[str]:
    for line in of_kind(lines, "check"):
        if not line["ok"]:
            rest = {key: value for key, value in line.items() if key not in ("step", "kind", "what", "ok")}
            yield f"{line['step']}: {line['what']} {str(rest)[-400:]}"
    for line in of_kind(lines, "end"):
        if line["status"] in ("failed", "timeout"):
            yield f"{line['step']}: {line['status']} {' '.join(map(str, line.get('problems', [])))}".rstrip()


def against(lines: list[Line], peer: Line) -> str:
    """Our whole step, the optimizer's included, as a share of a peer's forward and backward of the same tokens."""
    ours = [line["seconds"][-1] for line in of_kind(lines, "train") if line["plan"] == peer["plan"]]
    theirs = peer["seconds"][-1] if "seconds" in peer else None
    return f"a whole step of fpdt takes {ours[-1] / theirs:.2f} of it" if ours and theirs else ""


def number(value: float | None, form: str) -> str:
    """null stands for what is no number."""
    return "-" if value is None else format(value, form)


def peak_text(line: Line) -> str:
    peak = line["allocator"].get("allocatedPeakBytes")
    return "" if peak is None else f"{peak / GIB:.2f}"


def error(planned: float | None, measured: float | None) -> str:
    return f"{100 * (planned / measured - 1):+.1f}%" if planned is not None and measured else ""
