"""Headers of plans that contradict themselves or the worker are refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fpdt.errors import PlanError
from fpdt.plan import decode, load_plan
from fpdt.plan.check_header import KNOWN_FEATURES
from tests.two_layers import two_layers

Json = dict[str, Any]


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
