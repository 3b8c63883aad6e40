"""What every family's code makes inside when it runs is what the planner says, to the byte."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from fpdt.measure.memory import LiveBytes
from fpdt.models.interpreter import LinkedCode
from tests.families import CASES, ROWS, Built, families, random_rows, token_ids

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def measured(code: LinkedCode, views: Mapping[str, Tensor]) -> int:
    env = dict(views)
    with torch.no_grad(), LiveBytes() as live, live.scope() as scope:
        code.run(env)
    return scope.peak_bytes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_each_code_makes_as_many_bytes_as_planned(name: str, dtype: str) -> None:
    model = Built(families()[name], DTYPES[dtype])
    table = model.family.parameters

    def rows(view: str, of_dtype: torch.dtype = model.dtype) -> Tensor:
        return random_rows(model.width(view), of_dtype, 1)

    x, positions = rows("x"), torch.arange(ROWS)
    q, k, v, o = rows("q"), rows("k"), rows("v"), rows("q")
    dq, dk, dv = (rows(name, torch.float32) for name in "qkv")
    tokens = {"@x": x, "@positions": positions}
    peaks = []
    for number in (model.family.code.class_of.index(i) for i in range(len(model.family.code.classes))):
        layer, wgrad = model.layers[number], model.layer_region(number)
        after = {"@x": x, "@o": o}
        grads = {"@dq": dq, "@dk": dk, "@dv": dv, "@dx": rows("x")}
        peaks.append(
            {
                "pre": measured(layer.pre, {**tokens, "@q": q, "@k": k, "@v": v}),
                "preQ": measured(layer.pre_q, {**tokens, "@q": q}),
                "preKv": measured(layer.pre_kv, {**tokens, "@k": k, "@v": v}),
                "preBwd": measured(layer.pre_bwd, {**tokens, **grads, "wgrad": wgrad}),
                "post": measured(layer.post, {**after, "@y": rows("x")}),
                "postBwd": measured(layer.post_bwd, {**after, "@do": rows("q"), "@dx": rows("x"), "wgrad": wgrad}),
            }
        )
    engine, ids = model.engine, token_ids(int(model.family.config["vocab_size"]))
    embed, head = model.region(table.num_embed_elements), model.region(table.num_head_elements)
    looked_up = {"@tokenIds": ids, "@positions": positions}
    ends = {
        "embed": measured(engine.embed, {**looked_up, "@x": rows("x")}),
        "embedBwd": measured(engine.embed_bwd, {**looked_up, "@dx": x, "wgrad": embed}),
        "head": measured(engine.head.norm, {"@x": x}),
        "headBwd": measured(engine.head.norm_bwd, {"@x": x, "@dy": rows("x"), "@dx": rows("x"), "wgrad": head}),
    }
    planned = model.family.peaks[dtype]
    assert ends == planned["ends"]
    assert peaks == list(planned["layers"])
