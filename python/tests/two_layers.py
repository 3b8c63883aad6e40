"""A plan of two layers by hand, with something of everything a plan has."""

from __future__ import annotations

from tests.plan_builder import PlanBuilder, View


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
