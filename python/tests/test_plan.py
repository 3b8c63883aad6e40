"""Plans: decoded as they were written, refused with a reason when they are not whole or contradict themselves."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpdt.errors import PlanError
from fpdt.plan import OP_KINDS, Frames, Range, decode, load_plan
from fpdt.plan.sections import head_lists
from tests.plan_builder import PlanBuilder, View
from tests.two_layers import two_layers

Json = dict[str, Any]


def test_decodes_what_was_encoded() -> None:
    plan = two_layers().build()
    copy, post, attn = plan.sections["layerForward"].ops
    assert (copy.id, copy.kind, copy.stream, copy.tokens, copy.kv) == (0, "copy", "h2d", Range(4, 8), None)
    assert (post.waits, post.scratch_bytes, attn.kv, attn.attribute.tiles) == ((0,), 96, Range(0, 4), 2)
    assert attn.attribute.mask is not None and attn.attribute.mask.kind == "full"
    assert (post.attribute.tiles, post.attribute.mask) == (1, None)
    texts = [plan.sections["layerForward"].access_text(item) for item in post.accesses]
    assert texts == ["x#x[0:4)", "o#o[4:8)", "x#x+1[0:4)"]
    assert [access.instance((1, 0)) for access in post.accesses] == [1, 0, 2]
    assert (len(attn.reads), len(attn.writes), attn.accumulates) == (3, 2, ())
    assert plan.buffer("h").pool == "host" and plan.buffer("h").row_bytes == 16
    assert plan.buffer("o").offset == 3 * 512 and plan.num_layers == 2
    assert plan.parameters.layers[0].weights[0].shape == (2, 3)
    assert plan.head_map.query == ((0, 1),)
    assert [turn.name for turn in plan.turns] == [
        *("embed forward", "layer 0 forward", "layer 1 forward", "head forward"),
        *("head backward", "layer 1 backward", "layer 0 backward", "embed backward", "end"),
    ]
    assert plan.turns[2].calls[0].waits == (0, 0, 0b1001, 0, 0, 0)
    assert json.loads(plan.prose)["cluster"] == {"kind": "cluster"}


def test_the_digest_covers_header_bytes_and_raw_columns(tmp_path: Path) -> None:
    frames = two_layers().encode()
    raw = b"".join(zlib.decompress(column) for column in frames.columns.values())
    expected = hashlib.sha256(frames.header + raw).hexdigest()
    assert decode(*frames).digest == load_plan(two_layers().write(tmp_path / "plan.json")).digest == expected
    stored = {name: zlib.compress(zlib.decompress(data), level=0) for name, data in frames.columns.items()}
    assert decode(frames.header, b"other prose", stored).digest == expected
    assert decode(frames.header + b" ", frames.prose, frames.columns).digest != expected


def test_heads_of_an_exchange_follow_buffer_names() -> None:
    builder = PlanBuilder()
    names = ["qLocal", "kLocal", "v.staged", "dq", "dkLocal@host", "dv", "do", "oLocal"]
    for name in names:
        builder.buffer(name, 2, (2, 4))
    builder.section("one").op("toHeads", [View(n, 0, 2) for n in names], [View(n, 0, 2) for n in names])
    (op,) = builder.build().sections["one"].ops
    query, both = "query", "keyValue"
    assert op.pair_heads == (query, both, both, query, both, both, query, query)
    assert head_lists("kvs") == both


COLUMN_CHANGES: list[tuple[str, int, int, str]] = [
    ("opStream", 1, 2, "op 1 zero of embedForward is on stream h2d, not compute"),
    ("opStream", 1, 9, "has stream 9, of 6"),
    ("opStream", 2, 3, "op 0 copy of layerForward copies from host to hbm on stream d2h"),
    ("opKind", 0, 250, "has kind 250, of 29"),
    ("opKind", 1, 1, "op 1 embed of embedForward has 0 reads, expected 2"),
    ("accessBuffer", 0, 77, "names buffer 77, of 7"),
    ("accessEnd", 2, 99, r"rows \[0:99\) of h, which has 4"),
    ("accessIndex", 2, 1, "instance 1 of h, which has 1"),
    ("accessParam", 4, 2, "layerForward uses parameter 2 of 2"),
    ("accessParam", 4, -3, "a parameter below -1"),
    ("view", 0, 99, "names access 99, of"),
    ("wait", 0, 1, "op 1 post of layerForward waits for op 1, which is not an earlier op"),
    ("opViews", 1, 9999, "the offsets opViews do not ascend"),
    ("opNumWrites", 0, 9, "has -8 accumulates, expected 0"),
    ("opTokens", 1, -1, r"has tokens \[0:-1\)"),
    ("opKv", 9, 0, r"has kv \[0:0\)"),
    ("opKv", 9, -1, r"has kv \[0:-1\)"),
    ("opAttribute", 4, -1, "op 2 attn of layerForward has no mask"),
    ("opAttribute", 4, 1, "has attribute 1, of 1"),
]


@pytest.mark.parametrize(("column", "place", "value", "message"), COLUMN_CHANGES)
def test_refuses_a_changed_column(column: str, place: int, value: int, message: str) -> None:
    frames = two_layers().encode()
    dtype = next(row["dtype"] for row in json.loads(frames.header)["columns"] if row["name"] == column)
    values = np.frombuffer(zlib.decompress(frames.columns[column]), dtype).copy()
    values[place] = value
    with pytest.raises(PlanError, match=message):
        decode(frames.header, frames.prose, {**frames.columns, column: zlib.compress(values.tobytes())})


@pytest.mark.parametrize(
    ("mask", "tokens", "kv", "message"),
    [
        ({"kind": "causal"}, (4, 8), (0, 4), r"kv \[0:4\) for tokens \[4:8\)"),
        ({"kind": "causal"}, (4, 8), (0, 8), None),
        ({"kind": "window", "window": 3}, (4, 8), (4, 9), r"kv \[4:9\) for tokens \[4:8\)"),
        ({"kind": "window", "window": 3}, (4, 8), (0, 4), None),
        ({"kind": "full"}, (4, 8), None, "has no kv range"),
        ({"kind": "full"}, (4, 8), (0, 5), r"kv \[0:5\) for tokens \[4:8\)"),
        ({"kind": "full"}, (4, 8), (0, 4), None),
    ],
)
def test_masks_fit_their_ranges(
    mask: Json, tokens: tuple[int, int], kv: tuple[int, int] | None, message: str | None
) -> None:
    builder = PlanBuilder().buffer("q", 8).buffer("lse", 8)
    attribute = builder.attribute(mask=mask)
    more: Json = {"tokens": tokens, "attribute": attribute, **({} if kv is None else {"kv": kv})}
    builder.section("one").op("attn", [View("q", 0, 8)] * 3, [View("q", 0, 8), View("lse", 0, 8)], **more)
    if message is None:
        builder.build()
        return
    with pytest.raises(PlanError, match=message):
        builder.build()


@pytest.mark.parametrize(
    ("kind", "kv", "is_right"), [("merge", (0, 4), True), ("merge", (0, 8), False), ("mergeFirst", (0, 4), False)]
)
def test_only_what_serves_attention_to_earlier_keys_names_them(kind: str, kv: tuple[int, int], is_right: bool) -> None:
    builder = PlanBuilder().buffer("q", 8).buffer("lse", 8)
    part, total = [View("q", 0, 8)] * 2, [View("lse", 0, 8)] * 2
    views: Json = {"writes": total} if kind == "mergeFirst" else {"accumulates": total}
    builder.section("one").op(kind, part, tokens=(4, 8), kv=kv, **views)
    if is_right:
        builder.build()
        return
    with pytest.raises(PlanError, match=rf"op 0 {kind} of one has kv \[0:{kv[1]}\) for tokens \[4:8\)"):
        builder.build()


def test_a_section_is_all_zeros_work_or_none() -> None:
    builder = PlanBuilder().buffer("x", 4).section("mixed").op("gather").op("zero", writes=[View("x", 0, 4)])
    with pytest.raises(PlanError, match="mixed mixes work of ZeRO's with the plan's"):
        builder.build()


def test_refuses_columns_cut_short() -> None:
    header, prose, columns = two_layers().encode()
    raw = zlib.decompress(columns["opTokens"])
    for data, message in (
        (zlib.compress(raw[:-8]), f"column opTokens has {len(raw) - 8} bytes, expected {len(raw)}"),
        (zlib.compress(raw + b"12345678"), f"column opTokens has {len(raw) + 1} bytes"),
        (columns["opTokens"][:-9], "column opTokens"),
        (b"not deflated", "column opTokens is not deflated"),
    ):
        with pytest.raises(PlanError, match=message):
            decode(header, prose, {**columns, "opTokens": data})
    with pytest.raises(PlanError, match="header is not JSON"):
        decode(header[:-7], prose, columns)
    with pytest.raises(PlanError, match="header names columns"):
        decode(header, prose, {name: data for name, data in columns.items() if name != "wait"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "not JSON, or was cut short"),
        (lambda text: text.replace('\\"seed\\": 0', '\\"seed\\": 3'), "it was changed"),
        (lambda text: text.replace('"version": 2', '"version": 7', 1), "has version 7"),
        (lambda text: text.replace("executionPlanFile", "shoppingList"), "is not a plan file"),
        (lambda text: text.replace('"columns": {"opKind": "', '"columns": {"opKind": "!'), "lacks a part"),
        (lambda text: "[1, 2]", "is not a plan file"),
    ],
)
def test_refuses_a_damaged_file(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    path = two_layers().write(tmp_path / "plan.json")
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(PlanError, match=message) as caught:
        load_plan(path)
    assert "fpdt plan" in caught.value.hint or "same version" in caught.value.hint


def test_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="No such file"):
        load_plan(tmp_path / "none.json")


def test_frames_are_checked_by_their_digest_only(tmp_path: Path) -> None:
    from fpdt.plan import read_frames

    path = two_layers().write(tmp_path / "plan.json")
    frames = read_frames(path)
    assert isinstance(frames, Frames) and frames.columns.keys() == two_layers().encode().columns.keys()


def test_every_kind_of_the_table_travels() -> None:
    rows = json.loads(two_layers().encode().header)["opKinds"]
    assert [row["name"] for row in rows] == list(OP_KINDS)
