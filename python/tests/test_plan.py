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
from fpdt.plan.check_header import KNOWN_FEATURES
from fpdt.plan.sections import head_lists
from tests.plan_builder import PlanBuilder, View

Json = dict[str, Any]


def two_layers() -> PlanBuilder:
    builder = PlanBuilder(num_layers=2)
    builder.buffer("x", 8, (4,), instances=3, scope="step").buffer("o", 8, (4,), instances=2, scope="step")
    builder.buffer("x.staged", 4, (4,)).buffer("h", 4, (4,), pool="host", scope="step")
    builder.buffer("lse", 8, (1,)).table("tokenIds", 8)
    full = builder.attribute(mask={"kind": "full"}, tiles=2)
    builder.section("embedForward").op("loadBatch", writes=[View("tokenIds", 0, 8)])
    builder.op("zero", writes=[View("x", 0, 8)]).call("embed forward")
    builder.section("layerForward", "x", "o")
    builder.op("copy", [View("h", 0, 4)], [View("x.staged", 0, 4)], tokens=(4, 8))
    layer_views = [View("x", 0, 4, "x"), View("o", 4, 8, "o")]
    builder.op("post", layer_views, [View("x", 0, 4, "x", 1)], waits=[0], scratch=96)
    views = [View("x", 0, 4)] * 3, [View("o", 0, 4), View("lse", 0, 4)]
    builder.op("attn", *views, tokens=(4, 8), kv=(0, 4), waits=[0, 1], attribute=full)
    for layer in range(2):
        builder.call(f"layer {layer} forward", args=[layer, layer], layer=layer, waits={"h2d": ["d2h", "compute"]})
    builder.section("gather").op("gather").call("layer 1 backward", layer=0)
    builder.section("release").op("release").call("layer 1 backward", layer=0)
    builder.section("reduce").op("reduce").call("end", owner="zero")
    builder.section("optimizerStep").op("optimizerStep").call("end")
    return builder


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


def changed(**fields: Any) -> Callable[[Json], object]:
    return lambda header: header.update(fields)


def turns(header: Json) -> list[Json]:
    found: list[Json] = header["programs"]["train"]["turns"]
    return found


HEADER_CHANGES: list[tuple[Callable[[Json], object], str]] = [
    (changed(version=1), "version 1, this worker reads 2"),
    (changed(version=7), "version 7, this worker reads 2"),
    (changed(kind="somethingElse"), "not that of an execution plan"),
    (changed(features=["rebuild", "telepathy"]), "does not know the features 'telepathy'"),
    (changed(sections=[]), "has .* values, expected 0"),
    (changed(surprise=1), "header's surprise: Extra inputs"),
    (lambda h: h.pop("buffers"), "header's buffers: Field required"),
    (lambda h: h["model"].pop("numLayers"), r"model.numLayers: Field required"),
    (lambda h: h["model"]["code"].pop("classes"), r"model.code.classes: Field required"),
    (lambda h: h["model"]["code"].update(classOf=[0]), "model.code is of 1 layers, the model has 2"),
    (lambda h: h["model"]["code"].update(classOf=[0, 1]), "a layer is of a class that model.code lacks"),
    (lambda h: h["columns"].pop(), "the header names columns"),
    (lambda h: h["columns"][0].update(dtype="int64"), "column opKind has .* bytes, expected"),
    (lambda h: h["columns"].append(h["columns"][0]), "names a column twice"),
    (lambda h: h["opKinds"][0].update(name="teleport"), "does not know the op kinds 'teleport'"),
    (lambda h: h["opKinds"][8].update(reads=["q", "k"]), "op kind attn: the plan says reads q k, this worker q k v"),
    (lambda h: h["opKinds"][2].update(writes=[]), "op kind zero: the plan says writes none, this worker many"),
    (lambda h: h["opKinds"][0].update(stream="link"), "op kind loadBatch: the plan says stream link, this worker comp"),
    (lambda h: h["opKinds"][25].update(external=False), "op kind gather: the plan says external False"),
    (lambda h: h["buffers"][0].update(offset=99), "x at 99 of hbm is not aligned to 4"),
    (lambda h: h["buffers"][0].update(pool="cloud"), "the unknown pool cloud"),
    (lambda h: h["buffers"][0].update(instances=99), "the pool has"),
    (lambda h: h["buffers"][0].update(instanceBytes=8), "an instance takes 128 bytes"),
    (lambda h: h["buffers"][0].update(blockRows=4), "expected those of blocks of 4 rows"),
    (lambda h: h["buffers"][0].update(blockRows=3, strides=[1, 3]), "rows in blocks of 3"),
    (lambda h: h["buffers"][0].update(blockRows=1, strides=[1, 1]), "are no block of 1"),
    (lambda h: h["buffers"][1].update(name="x"), "names a buffer twice"),
    (lambda h: h["tables"][0].update(capacity=3), "table tokenIds of 3 rows fills tokenIds"),
    (lambda h: h["layout"].update(sequenceGroups=[[1]]), "are not 1 ranks"),
    (lambda h: h["layout"]["heads"].update(query=[[0], [1]]), "layout.heads.query gives the 1 ranks"),
    (lambda h: h["links"][0].update(stream="comm"), "the link host to hbm is on stream comm"),
    (lambda h: h["attributes"][0]["mask"].update(kind="window"), "a mask of kind window has window None"),
    (lambda h: turns(h).pop(1), "turn 1 of the program is layer 1 forward, where layer 0 forward is due"),
    (lambda h: turns(h).pop(), "turn 8 of the program is nothing, where end is due"),
    (lambda h: turns(h)[1]["calls"][0].update(section="nowhere"), "layer 0 forward calls nowhere, which is no section"),
    (lambda h: turns(h)[1]["calls"][0].update(args=[0]), "has 1 arguments, the section 2 parameters"),
    (lambda h: turns(h)[1]["calls"][0].update(args=[2, 0]), "binds x to 2, it may be 0 to 1"),
    (lambda h: turns(h)[1]["calls"][0].update(args=[0, 2]), "binds o to 2, it may be 0 to 1"),
    (lambda h: turns(h)[1]["calls"][0].update(waits=[0]), "has 1 entry masks for 6 streams"),
    (lambda h: turns(h)[1]["calls"][0].update(waits=[64, 0, 0, 0, 0, 0]), "waits for a stream that is not there"),
    (lambda h: turns(h)[1]["calls"][0].update(layer=2), "is for layer 2"),
    (lambda h: turns(h)[1]["calls"][0].pop("layer"), "names no layer, its ops use one's weights"),
    (lambda h: turns(h)[5]["calls"].pop(0), "layer 1 backward releases layer 0, which it has not gathered"),
    (lambda h: turns(h)[5]["calls"].pop(1), "layer 1 backward gathers layer 0, which it never releases"),
    (lambda h: turns(h)[8]["calls"][0].update(owner="plan"), "is the plan's to run, but its work is ZeRO's"),
    (lambda h: turns(h)[0]["calls"].append(turns(h)[4]["calls"][0]), "embed forward hands over gradients 1 times"),
    (lambda h: turns(h)[4]["calls"].clear(), "head backward hands over gradients 0 times, not 1"),
]


@pytest.mark.parametrize(("change", "message"), HEADER_CHANGES)
def test_refuses_a_changed_header(change: Callable[[Json], object], message: str) -> None:
    frames = two_layers().encode()
    document = json.loads(frames.header)
    change(document)
    with pytest.raises(PlanError, match=message) as caught:
        decode(json.dumps(document).encode(), frames.prose, frames.columns)
    assert caught.value.hint


def test_old_plans_are_to_be_planned_again(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps({"kind": "executionPlanFile", "version": 1, "header": {}}))
    with pytest.raises(PlanError, match="version 1") as caught:
        load_plan(tmp_path / "old.json")
    assert "plan again with `fpdt plan`" in caught.value.hint


@pytest.mark.parametrize("feature", sorted(KNOWN_FEATURES))
def test_known_features_are_taken(feature: str) -> None:
    builder = two_layers()
    builder.features.append(feature)
    builder.build()


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
