"""A complete plan for a small Llama, written by hand: what the planner makes, of which only the model's code and its
parameter table are the planner's own.

Keys, values and saved attention outputs stay on the device; hidden states are kept for every layer, or with `rebuild`
for the first of two: the other's is formed again in backward, from the saved attention output. Every op waits for the
one before it, every call for all streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.model_code import planned_model
from tests.plan_builder import STREAMS, PlanBuilder, View
from tests.planned import MODEL

ALL = dict.fromkeys(STREAMS, STREAMS)


class HandPlan(PlanBuilder):
    """`num_ranks` ranks share one sequence. Attributes tell sizes: tokens in all, chunks, rows of a rank's chunk."""

    def __init__(
        self,
        deepspeed: Mapping[str, Any],
        *,
        seq_len: int = 96,
        num_chunks: int = 2,
        num_ranks: int = 1,
        tied: bool = False,
        rebuild: bool = False,
        tiles: int = 1,
        accumulation_steps: int = 1,
        loss_scale: float = 1.0,
        dtype: str = "float32",
    ) -> None:
        super().__init__(num_layers=2)
        self.model = {**MODEL, "tie_word_embeddings": tied}
        self.tied, self.rebuild, self.tiles, self.ranks = tied, rebuild, tiles, num_ranks
        self.chunks, self.padded = num_chunks, -(-seq_len // (num_chunks * num_ranks)) * num_chunks * num_ranks
        self.chunk = self.padded // num_chunks
        self.local = self.chunk // num_ranks
        self.dtype = dtype
        self.hidden, self.heads, self.kv_heads = MODEL["hidden_size"], 4, 2
        self.head_dim = self.hidden // self.heads
        self.overrides = self._specs(deepspeed, seq_len, accumulation_steps, loss_scale)
        self.table_of = self.overrides["parameters"]
        self.full = self.attribute(mask={"kind": "full"})
        self.causal = self.attribute(mask={"kind": "causal"})
        self.tiled = self.attribute(tiles=tiles)
        self._buffers()
        self._sections()
        self._program()

    def step(
        self,
        kind: str,
        reads: Sequence[View] = (),
        writes: Sequence[View] = (),
        accumulates: Sequence[View] = (),
        **more: Any,
    ) -> None:
        """An op that waits for the one before it."""
        number = len(self.sections[self.current])
        self.op(kind, reads, writes, accumulates, [number - 1] if number else [], **more)

    def _specs(self, deepspeed: Mapping[str, Any], seq_len: int, steps: int, loss_scale: float) -> dict[str, Any]:
        own, kv = self.heads // self.ranks, max(1, self.kv_heads // self.ranks)
        planned = planned_model(self.model)
        stage = deepspeed["zero_optimization"]["stage"]
        key_value = [[(r * self.kv_heads // self.ranks) + i for i in range(kv)] for r in range(self.ranks)]
        return {
            "numRanks": self.ranks,
            "ranksPerNode": self.ranks,
            "model": dict(planned.model),
            "run": {
                **{"sequenceParallelSize": self.ranks, "dataParallelSize": 1, "dtype": self.dtype, "seed": 3},
                **{"seqLen": seq_len, "paddedSeqLen": self.padded, "gradientAccumulationSteps": steps},
                **{"zeroStage": stage, "lossScale": loss_scale, "numSteps": 2},
            },
            "deepspeed": dict(deepspeed),
            "strategy": {"numChunks": self.chunks, "localChunkTokens": self.local},
            "parameters": dict(planned.parameters),
            "layout": {
                "sequenceGroups": [list(range(self.ranks))],
                "heads": {
                    "query": [list(range(r * own, (r + 1) * own)) for r in range(self.ranks)],
                    "keyValue": key_value,
                },
            },
        }

    def _buffers(self) -> None:
        d, own, kv = self.head_dim, self.heads // self.ranks, max(1, self.kv_heads // self.ranks)
        rows, total = self.local * self.chunks, self.padded
        for name in ("tokenIds", "positions", "labels"):
            self.table(name, rows)
        model: dict[str, Any] = {"dtype": self.dtype}
        kept: dict[str, Any] = {**model, "scope": "step"}
        self.buffer("x", rows, (self.hidden,), instances=4, **kept).buffer("dx", rows, (self.hidden,), **kept)
        self.buffer("o", total, (own, d), instances=2, **kept).buffer("lse", total, (own,), instances=2, scope="step")
        for name, count in (("qLocal", self.heads), ("kLocal", self.kv_heads), ("vLocal", self.kv_heads)):
            self.buffer(name, self.local, (count, d), **model).buffer(f"d{name}", self.local, (count, d))
        for name in ("oLocal", "doLocal"):
            self.buffer(name, self.local, (self.heads, d), **model)
        for name in ("q", "do", "oPart"):
            self.buffer(name, self.chunk, (own, d), **model)
        for name in ("dq", "oAcc"):
            self.buffer(name, self.chunk, (own, d))
        for name in ("lsePart", "lseAcc"):
            self.buffer(name, self.chunk, (own,))
        for name in ("k", "v"):
            self.buffer(name, total, (kv, d), **model).buffer(f"d{name}", total, (kv, d))
        self.buffer("lossSum", 1, scope="step")
        sizes = {name: self.table_of[f"num{name}Elements"] for name in ("Head", "Embed")}
        for name, size in ({"Layer": self.table_of["layers"][0]["numElements"]} | sizes).items():
            self.buffer(f"wgrad{name}", size, scope="call" if name == "Layer" else "step")

    def whole(self, name: str, param: str | None = None, index: int = 0) -> View:
        rows = next(buffer["shape"][0] for buffer in self.buffers if buffer["name"] == name)
        return View(name, 0, rows, param, index)

    def mine(self, name: str, i: int, param: str | None = None, index: int = 0) -> View:
        """The rank's rows of chunk i."""
        return View(name, i * self.local, (i + 1) * self.local, param, index)

    def all(self, name: str, i: int, param: str | None = None) -> View:
        """All rows of chunk i."""
        return View(name, i * self.chunk, (i + 1) * self.chunk, param)

    def _sections(self) -> None:
        self.section("embedForward")
        self.step("loadBatch", [], [self.whole(name) for name in ("tokenIds", "positions", "labels")])
        for i in range(self.chunks):
            self.step("embed", [self.mine("tokenIds", i), self.mine("positions", i)], [self.mine("x", i)])
        self.section("layerForward", "x", "o")
        for i in range(self.chunks):
            self._forward(i)
        self.section("layerRebuild", "x", "o", "y")
        for i in range(self.chunks):
            self._local_output(i)
            views = [self.mine("x", i, "x"), self.whole("oLocal")]
            self.step("post", views, [self.mine("x", i, "y")], attribute=self.tiled)
        self._loss_sections()
        self.section("layerBackward", "x", "o")
        self.step("zero", [], [self.whole("wgradLayer"), self.whole("dk"), self.whole("dv")])
        for i in range(self.chunks):
            local = [self.whole("kLocal"), self.whole("vLocal")]
            self.step("preKv", [self.mine("x", i, "x"), self.mine("positions", i)], local, attribute=self.tiled)
            self.step("toHeads", local, [self.all("k", i), self.all("v", i)])
        for i in reversed(range(self.chunks)):
            self._backward(i)
        self.step("emitGrads", [self.whole("wgradLayer")])
        self.section("embedBackward")
        if not self.tied:
            self.step("zero", [], [self.whole("wgradEmbed")])
        for i in range(self.chunks):
            views = [self.mine(name, i) for name in ("dx", "tokenIds", "positions")]
            self.step("embedBwd", views, [], [self.whole("wgradEmbed")])
        self.step("emitGrads", [self.whole("wgradEmbed")])
        for kind in ("gather", "release", "reduce", "optimizerStep"):
            self.section(kind).op(kind)

    def _forward(self, i: int) -> None:
        local = [self.whole(name) for name in ("qLocal", "kLocal", "vLocal")]
        self.step("pre", [self.mine("x", i, "x"), self.mine("positions", i)], local, attribute=self.tiled)
        self.step("toHeads", local, [self.whole("q"), self.all("k", i), self.all("v", i)])
        part, total = [self.whole("oPart"), self.whole("lsePart")], [self.whole("oAcc"), self.whole("lseAcc")]
        for n, (start, end, mask) in enumerate(self._ranges(i)):
            views = [self.whole("q"), View("k", start, end), View("v", start, end)]
            self.step("attn", views, part, **self._attended(i, start, end, mask))
            self.step("mergeFirst", part, total) if n == 0 else self.step("merge", part, [], total)
        self.step("cast", total, [self.all("o", i, "o"), self.all("lse", i, "o")])
        self._local_output(i)
        views = [self.mine("x", i, "x"), self.whole("oLocal")]
        self.step("post", views, [self.mine("x", i, "x", 1)], attribute=self.tiled)

    def _backward(self, i: int) -> None:
        self._local_output(i)
        total = [self.mine("dx", i), self.whole("wgradLayer")]
        views = [self.mine("x", i, "x"), self.whole("oLocal")]
        self.step("postBwd", views, [self.whole("doLocal")], total, attribute=self.tiled)
        self.step("preQ", [self.mine("x", i, "x"), self.mine("positions", i)], [self.whole("qLocal")])
        self.step("toHeads", [self.whole("doLocal"), self.whole("qLocal")], [self.whole("do"), self.whole("q")])
        self.step("zero", [], [self.whole("dq")])
        for start, end, mask in self._ranges(i):
            reads = [self.whole("q"), View("k", start, end), View("v", start, end)]
            reads += [self.all("o", i, "o"), self.all("lse", i, "o"), self.whole("do")]
            grads = [self.whole("dq"), View("dk", start, end), View("dv", start, end)]
            self.step("attnBwd", reads, [], grads, **self._attended(i, start, end, mask))
        local = [self.whole(name) for name in ("dqLocal", "dkLocal", "dvLocal")]
        self.step("toSequence", [self.whole("dq"), self.all("dk", i), self.all("dv", i)], local)
        views = [self.mine("x", i, "x"), self.mine("positions", i), *local]
        self.step("preBwd", views, [], total, attribute=self.tiled)

    def _loss_sections(self) -> None:
        h, num_head = self.hidden, self.table_of["numHeadElements"]
        regions = [self.whole("wgradHead"), *([self.whole("wgradEmbed")] if self.tied else [])]
        self.section("lossForward").step("zero", [], [self.whole("lossSum"), *regions])
        lm_head = self.whole("wgradEmbed") if self.tied else View("wgradHead", h, num_head)
        for i in range(self.chunks):
            total = [self.whole("lossSum"), View("wgradHead", 0, h), lm_head]
            views = [self.mine("x", i, index=2), self.mine("labels", i)]
            self.step("loss", views, [self.mine("dx", i)], total, attribute=self.tiled)
        self.section("lossBackward").step("rescale", [], [], [self.whole("dx"), *regions])
        self.step("emitGrads", [self.whole("wgradHead")])

    def _local_output(self, i: int) -> None:
        self.step("toSequence", [self.all("o", i, "o")], [self.whole("oLocal")])

    def _ranges(self, i: int) -> list[tuple[int, int, int]]:
        """The diagonal, then all before it."""
        diagonal = (i * self.chunk, (i + 1) * self.chunk, self.causal)
        return [diagonal, *([(0, i * self.chunk, self.full)] if i else [])]

    def _attended(self, i: int, start: int, end: int, mask: int) -> dict[str, Any]:
        return {"tokens": (i * self.chunk, (i + 1) * self.chunk), "kv": (start, end), "attribute": mask}

    def section(self, name: str, *params: str) -> HandPlan:
        super().section(name, *params)
        return self

    def _program(self) -> None:
        more: dict[str, Any] = {"waits": ALL}
        self.call("embed forward", "embedForward", **more).call("head forward", "lossForward", **more)
        self.call("head backward", "lossBackward", **more).call("embed backward", "embedBackward", **more)
        for layer in range(2):
            self.call(f"layer {layer} forward", "layerForward", [layer, layer], layer=layer, **more)
        turn, x = "layer 1 backward", 1
        if self.rebuild:
            x = 3
            self.call(turn, "gather", layer=0, **more)
            self.call(turn, "layerRebuild", [0, 0, x], layer=0, **more)
            self.call(turn, "release", layer=0, **more)
        self.call(turn, "layerBackward", [x, 1], layer=1, **more).call(turn, "reduce", owner="zero")
        self.call("layer 0 backward", "layerBackward", [0, 0], layer=0, **more)
        self.call("end", "optimizerStep")
