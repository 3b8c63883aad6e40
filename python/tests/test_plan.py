"""Plans: decoded as they were written, refused with a reason when they are not whole."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpdt.errors import PlanError
from fpdt.plan import Range, Stage, decode, load_plan
from fpdt.plan.canonical import canonical_bytes, canonical_text, js_number
from tests.plan_builder import PlanBuilder, View

CANONICAL_JS = """
const canonical = (v) => Array.isArray(v) ? '[' + v.map(canonical).join(',') + ']'
  : v !== null && typeof v === 'object'
    ? '{' + Object.keys(v).sort().map((k) => JSON.stringify(k) + ':' + canonical(v[k])).join(',') + '}'
    : JSON.stringify(v);
process.stdout.write(canonical(JSON.parse(require('fs').readFileSync(0, 'utf8'))));
"""

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
scalars = st.none() | st.booleans() | numbers | st.text(st.characters(codec=None))
documents = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec=None)), inner), max_leaves=40
)


def two_layers() -> PlanBuilder:
    builder = PlanBuilder(num_layers=2, segment_layers=1)
    builder.buffer("x", 8, (4,), instances=3, scope="step").buffer("o", 8, (4,), instances=2, scope="step")
    builder.buffer("x.staged", 4, (4,)).buffer("h", 4, (2,), pool="host", dtype="bfloat16", scope="step")
    builder.part("embedForward").op("zero", writes=[View("x", 0, 8)])
    builder.part("layerForward")
    builder.op("fetch", [View("h", 0, 4)], [View("x.staged", 0, 4)], tokens=(4, 8))
    layer_views = [View("x", 0, 4, "segment"), View("o", 4, 8, "layer")]
    builder.op("post", layer_views, [View("x", 0, 4, "segment", 1)], waits=[0], scratch=96.0)
    builder.op("attn", [View("x", 0, 4)] * 3, [View("o", 0, 4)] * 2, kv=(0, 4), waits=[0, 1])
    builder.part("lossForwardBackward").op("zero", writes=[View("h", 0, 1)]).part("lossForwardBackward")
    builder.part("layerBackward").op("zero", writes=[View("o", 0, 1)])
    builder.part("embedBackward").part("stepEnd").op("reduce").op("optimizerStep")
    return builder


def test_decodes_what_was_encoded() -> None:
    plan = two_layers().build()
    fetch, post, attn = plan.sections["layerForward"].ops
    assert (fetch.id, fetch.kind, fetch.stream, fetch.tokens, fetch.kv) == (0, "fetch", "h2d", Range(4, 8), None)
    assert (post.waits, post.scratch_bytes, attn.kv) == ((0,), 96, Range(0, 4))
    assert [plan.access_text(item) for item in post.accesses] == ["x#segment[0:4)", "o#layer[4:8)", "x#segment+1[0:4)"]
    assert plan.buffer("h").pool == "host" and plan.buffer("h").row_bytes == 4
    assert plan.buffer("o").offset == 3 * 512 and plan.num_segments == 2
    assert plan.parameters.layer[0].shape == (2, 3)
    assert plan.head_map.query == ((0, 1),)


def test_instances_follow_segment_and_layer() -> None:
    builder = PlanBuilder(num_layers=4, segment_layers=2).buffer("o", 1, instances=5, scope="step")
    builder.part("layerForward", layer_slot=1)
    builder.op("zero", writes=[View("o", 0, 1, bind, 1) for bind in ("fixed", "segment", "layer")])
    plan = builder.build()
    (op,) = plan.sections["layerForward"].ops
    assert [plan.instance(op, item, segment=1) for item in op.writes] == [1, 2, 4]


def test_timeline_goes_forth_and_back() -> None:
    stages = two_layers().build().timeline()
    assert stages == (
        Stage("embedForward", 0, 0),
        Stage("layerForward", 0, 0),
        Stage("layerForward", 0, 1),
        Stage("lossForwardBackward", 0, 0),
        Stage("lossForwardBackward", 1, 0),
        Stage("layerBackward", 0, 1),
        Stage("layerBackward", 0, 0),
        Stage("embedBackward", 0, 0),
    )


def test_digest_covers_header_and_columns(tmp_path: Path) -> None:
    builder = two_layers()
    header, columns = builder.encode()
    expected = hashlib.sha256(header + b"".join(columns.values())).hexdigest()
    assert decode(header, columns).digest == load_plan(builder.write(tmp_path / "plan.json")).digest == expected
    spaced = json.dumps(json.loads(header), indent=1).encode()
    assert decode(spaced, columns).digest == expected


def changed(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header.update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(version=0), "version 0, this worker runs 1"),
        (changed(kind="somethingElse"), "not that of an execution plan"),
        (changed(opKinds=["attn", "teleport"]), "does not know the op kinds 'teleport'"),
        (changed(sections=[]), "values, 0 ops need"),
        (lambda header: header.pop("buffers"), "'buffers'"),
        (lambda header: header["columns"].pop(), "the header names columns"),
        (lambda header: header["columns"][0].update(dtype="int64"), "unknown dtype int64"),
        (lambda header: header["sections"][1]["parts"][0].update(end=2), "do not cover its 3 ops"),
    ],
)
def test_refuses_a_changed_header(change: Callable[[dict[str, Any]], None], message: str) -> None:
    header, columns = two_layers().encode()
    document = json.loads(header)
    change(document)
    with pytest.raises(PlanError, match=message) as caught:
        decode(json.dumps(document).encode(), columns)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("opStream", 1, "op 0 zero is on stream h2d, not compute"),
        ("opStream", 9, "has stream 9, of 4"),
        ("opKind", 250, "has kind 250, of 25"),
        ("readBuffer", 77, "names buffer 77, of 4"),
        ("readEnd", 99, "rows \\[0:99\\) of h, which has 4"),
        ("readBind", 3, "has bind 3, of 3"),
        ("wait", 2, "waits for op 2, which is not an earlier op"),
        ("opReads", 5, "the read offsets do not ascend"),
    ],
)
def test_refuses_a_changed_column(column: str, value: int, message: str) -> None:
    header, columns = two_layers().encode()
    width = 1 if column in ("opStream", "opKind", "readBind") else 4
    columns[column] = value.to_bytes(width, "little") + columns[column][width:]
    with pytest.raises(PlanError, match=message):
        decode(header, columns)


def test_refuses_columns_cut_short() -> None:
    header, columns = two_layers().encode()
    with pytest.raises(PlanError, match=r"column opTokens has 60 bytes, expected 64"):
        decode(header, {**columns, "opTokens": columns["opTokens"][:-4]})
    with pytest.raises(PlanError, match="header is not JSON"):
        decode(header[:-7], columns)
    with pytest.raises(PlanError, match="header names columns"):
        decode(header, {name: data for name, data in columns.items() if name != "wait"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "not JSON, or was cut short"),
        (lambda text: text.replace('"numLayers": 2', '"numLayers": 3'), "it was changed"),
        (lambda text: text.replace('"version": 1', '"version": 7', 1), "plan file version 7"),
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


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1e-06, "0.000001"),
        (1e-07, "1e-7"),
        (1.5e-09, "1.5e-9"),
        (1e21, "1e+21"),
        (123456789012345680000.0, "123456789012345680000"),
        (12345678901234567890, "12345678901234567000"),
        (1e300, "1e+300"),
        (5e-324, "5e-324"),
        (-0.0, "0"),
        (3.0, "3"),
        (-2.5, "-2.5"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_numbers_print_as_in_javascript(number: float, text: str) -> None:
    assert js_number(number) == text


def test_keys_sort_by_code_unit() -> None:
    assert canonical_text({"\U0001f600": 1, "\uffff": 2, "b": 3, "a": 4}) == '{"a":4,"b":3,"\U0001f600":1,"\uffff":2}'


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_refuses_numbers_without_json_form(number: float) -> None:
    with pytest.raises(ValueError, match="no JSON form"):
        canonical_bytes([number])


@settings(max_examples=30, deadline=None)
@given(st.lists(documents, max_size=8), st.lists(numbers, max_size=60))
def test_canonical_bytes_are_those_of_javascript(values: list[Any], many_numbers: list[float]) -> None:
    text = json.dumps([values, many_numbers])
    node = subprocess.run(["node", "-e", CANONICAL_JS], input=text.encode(), capture_output=True, check=True)
    assert canonical_bytes(json.loads(text)) == node.stdout
