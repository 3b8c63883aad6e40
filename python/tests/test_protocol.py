"""The Python half of the wire contract: the fixtures and schemas that the TypeScript half reads too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fpdt.wire import protocol, telemetry_batch

ROOT = Path(__file__).resolve().parents[2]
WIRE = ROOT / "test" / "fixtures" / "wire"


def fixtures(folder: str) -> list[Any]:
    return [pytest.param(path.read_bytes(), id=path.stem) for path in sorted((WIRE / folder).glob("*.json"))]


@pytest.mark.parametrize("frame", fixtures("valid"))
def test_valid_message_survives_a_round_trip(frame: bytes) -> None:
    message = protocol.parse(frame)
    assert message is not None
    assert json.loads(message.model_dump_json(by_alias=True)) == json.loads(frame)


@pytest.mark.parametrize("frame", fixtures("invalid"))
def test_invalid_message_is_refused(frame: bytes) -> None:
    with pytest.raises(protocol.ProtocolError):
        protocol.parse(frame)


@pytest.mark.parametrize("frame", fixtures("unknown"))
def test_unknown_type_is_ignored(frame: bytes) -> None:
    assert protocol.parse(frame) is None


@pytest.mark.parametrize("frame", fixtures("telemetry/valid"))
def test_valid_batch(frame: bytes) -> None:
    batch = telemetry_batch.parse_batch(frame)
    assert json.loads(batch.model_dump_json(by_alias=True)) == json.loads(frame)


@pytest.mark.parametrize("frame", fixtures("telemetry/invalid"))
def test_invalid_batch(frame: bytes) -> None:
    with pytest.raises(protocol.ProtocolError):
        telemetry_batch.parse_batch(frame)


def test_made_message_parses() -> None:
    frame = protocol.make(protocol.Ping(stacks=True), run="r", rank=3, incarnation=1, seq=9, corr="m-0")
    message = protocol.parse(frame)
    assert message is not None
    assert (message.type, message.rank, message.seq, message.corr) == ("ping", 3, 9, "m-0")
    assert message.body == protocol.Ping(stacks=True)


def test_non_finite_numbers_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="finite"):
        protocol.KindTime(count=1, seconds=float("nan"))


def test_models_agree_with_the_generated_schema() -> None:
    schema = json.loads((ROOT / "schemas" / "message.json").read_text())
    bodies = {one["properties"]["type"]["const"]: one["properties"]["body"] for one in schema["oneOf"]}
    assert bodies.keys() == protocol.BODIES.keys()
    for name, body in bodies.items():
        assert shape(body) == shape(python_schema(protocol.BODIES[name])), name


def test_batch_agrees_with_the_generated_schema() -> None:
    schema = json.loads((ROOT / "schemas" / "telemetryBatch.json").read_text())
    assert shape(schema) == shape(python_schema(telemetry_batch.TelemetryBatch))


def python_schema(model: type[protocol.Wire]) -> Any:
    schema = model.model_json_schema(by_alias=True)
    return resolve(schema, schema.get("$defs", {}))


def resolve(node: Any, defs: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [resolve(item, defs) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return resolve(defs[node["$ref"].rsplit("/", 1)[1]], defs)
    return {key: resolve(value, defs) for key, value in node.items() if key != "$defs"}


def shape(node: Any) -> Any:
    """What both generators say in the same words: property names, types, choices and bounds."""
    if "properties" in node:
        assert node["additionalProperties"] is False
        return {name: shape(value) for name, value in node["properties"].items()}
    if "anyOf" in node or "oneOf" in node:
        return sorted(json.dumps(shape(one), sort_keys=True) for one in node.get("anyOf", node.get("oneOf")))
    if "const" in node or "enum" in node:
        return node.get("enum", [node.get("const")])
    if isinstance(node["type"], list):
        return sorted(json.dumps(shape({**node, "type": one}), sort_keys=True) for one in node["type"])
    if node["type"] == "array":
        return [shape(one) for one in node.get("prefixItems", [node.get("items")])]
    if node["type"] == "object":
        return {"*": shape(node["additionalProperties"])}
    keys = ("type", "minimum", "maximum", "exclusiveMinimum", "pattern")
    return {key: node[key] for key in keys if key in node}
