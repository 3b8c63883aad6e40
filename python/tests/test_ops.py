"""Op handlers on plain tensors: a streamed layer against Hugging Face's, exchanges, loss, embedding, moves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from fpdt.attention import AttentionError
from fpdt.errors import PlanError
from fpdt.models import EngineBinding, LayerBinding
from fpdt.ops import HANDLERS, check_handlers, view_names
from fpdt.plan import OP_KINDS, Mask
from fpdt.plan.nouns import PLAIN, FusedKernels
from fpdt.plan.op_kinds import EXTERNAL_KINDS
from fpdt.plan.sections import HeadLists
from tests.handler_calls import Caller, Group, GroupRuntime, close
from tests.tiny_models import FUSED, bound_engine, bound_layer, even_head_map, layer_forward, tiny_llama

SEQ_LEN, NUM_CHUNKS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM = 32, 4, 32, 4, 2, 8
CHUNK = SEQ_LEN // NUM_CHUNKS
QKV: tuple[HeadLists, ...] = ("query", "keyValue", "keyValue")


def test_every_kind_that_is_not_external_has_a_handler() -> None:
    assert set(HANDLERS) == set(OP_KINDS) - EXTERNAL_KINDS


def test_handlers_take_their_kinds_views_by_name() -> None:
    assert view_names(OP_KINDS["merge"]) == ("o_part", "lse_part", "o_acc", "lse")
    assert view_names(OP_KINDS["copy"]) == ("reads", "writes")
    assert view_names(OP_KINDS["rescale"]) == ("accumulates",)
    with pytest.raises(PlanError, match="the handler of post takes ctx, x, y, its views are ctx, x, o, y"):
        check_handlers({**HANDLERS, "post": lambda ctx, x, y: None})
    with pytest.raises(PlanError, match="op kind attn has no handler"):
        check_handlers({kind: handler for kind, handler in HANDLERS.items() if kind != "attn"})


# --- a whole layer, streamed -------------------------------------------------------------------------------------


@dataclass
class Streamed:
    """A rank's results, chunk by chunk: rows [i * c, (i + 1) * c) are those of chunk i."""

    y: Tensor
    dx: Tensor
    wgrad: Tensor


class LayerStream:
    """Runs one decoder layer through the handlers, forward and descending backward, on one rank of a group."""

    def __init__(
        self,
        runtime: GroupRuntime,
        extra: EngineBinding,
        layer: LayerBinding,
        x: Tensor,
        dy: Tensor,
        tiles: int = 1,
    ) -> None:
        self.tiles = tiles
        self.size, self.rank, self.layer, self.dtype = len(extra.head_map.query), runtime.rank, layer, x.dtype
        self.call = Caller(runtime, extra, layer)
        self.local = CHUNK // self.size
        self.positions = [self.share(torch.arange(SEQ_LEN), i) for i in range(NUM_CHUNKS)]
        self.x = [self.share(x, i) for i in range(NUM_CHUNKS)]
        self.dx = [self.share(dy, i) for i in range(NUM_CHUNKS)]
        self.k, self.v = (self.heads(SEQ_LEN, KV_HEADS) for _ in range(2))
        self.q, self.o = (self.heads(SEQ_LEN, HEADS) for _ in range(2))
        self.lse = torch.full((SEQ_LEN, HEADS // self.size), float("nan"))
        self.wgrad = torch.zeros(sum(weight.numel for weight in layer.weights))

    def share(self, rows: Tensor, chunk: int) -> Tensor:
        start = chunk * CHUNK + self.rank * self.local
        return rows[start : start + self.local].clone()

    def heads(self, rows: int, count: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.full((rows, count // self.size, HEAD_DIM), float("nan"), dtype=dtype or self.dtype)

    def shares(self, *counts: int, dtype: torch.dtype | None = None) -> list[Tensor]:
        return [torch.full((self.local, count, HEAD_DIM), float("nan"), dtype=dtype or self.dtype) for count in counts]

    def run(self) -> Streamed:
        y = torch.cat([self.forward(i) for i in range(NUM_CHUNKS)])
        dk, dv = (self.heads(SEQ_LEN, KV_HEADS, torch.float32) for _ in range(2))
        self.call("zero", [], [dk, dv])
        for i in reversed(range(NUM_CHUNKS)):
            self.backward(i, dk, dv)
        return Streamed(y, torch.cat(self.dx), self.wgrad)

    def forward(self, i: int) -> Tensor:
        rows = slice(i * CHUNK, (i + 1) * CHUNK)
        local = self.shares(HEADS, KV_HEADS, KV_HEADS)
        self.call("pre", [self.x[i], self.positions[i]], local, tiles=self.tiles)
        self.call("toHeads", local, [self.q[rows], self.k[rows], self.v[rows]], pair_heads=QKV)
        part = [self.heads(CHUNK, HEADS), torch.empty(CHUNK, HEADS // self.size)]
        total = [self.heads(CHUNK, HEADS, torch.float32), torch.empty(CHUNK, HEADS // self.size)]
        for n, (kv, span) in enumerate(self.ranges(i)):
            self.call("attn", [self.q[rows], self.k[kv], self.v[kv]], part, **self.attended(rows, span))
            self.call("mergeFirst", part, total) if n == 0 else self.call("merge", part, [], total)
        self.call("cast", total, [self.o[rows], self.lse[rows]])
        y = torch.empty_like(self.x[i])
        self.call("post", [self.x[i], self.o_local(rows)], [y], tiles=self.tiles)
        return y

    def backward(self, i: int, dk: Tensor, dv: Tensor) -> None:
        rows = slice(i * CHUNK, (i + 1) * CHUNK)
        q_local, do_local = self.shares(HEADS, HEADS)
        do, dq = self.heads(CHUNK, HEADS), self.heads(CHUNK, HEADS, torch.float32)
        total = [self.dx[i], self.wgrad]
        self.call("postBwd", [self.x[i], self.o_local(rows)], [do_local], total, tiles=self.tiles)
        self.call("preQ", [self.x[i], self.positions[i]], [q_local], tiles=self.tiles)
        self.call("toHeads", [do_local, q_local], [do, self.q[rows]], pair_heads=("query", "query"))
        self.call("zero", [], [dq])
        for kv, span in self.ranges(i):
            reads = [self.q[rows], self.k[kv], self.v[kv], self.o[rows], self.lse[rows], do]
            self.call("attnBwd", reads, [], [dq, dk[kv], dv[kv]], **self.attended(rows, span))
        grads = self.shares(HEADS, KV_HEADS, KV_HEADS, dtype=torch.float32)
        self.call("toSequence", [dq, dk[rows], dv[rows]], grads, pair_heads=QKV)
        self.call("preBwd", [self.x[i], self.positions[i], *grads], [], total, tiles=self.tiles)

    def o_local(self, rows: slice) -> Tensor:
        (o,) = self.shares(HEADS)
        self.call("toSequence", [self.o[rows]], [o], pair_heads=("query",))
        return o

    def attended(self, rows: slice, span: tuple[int, int]) -> dict[str, Any]:
        mask = Mask(kind="full" if span[1] <= rows.start else "causal")
        return {"tokens": (rows.start, rows.stop), "kv": span, "mask": mask}

    def ranges(self, i: int) -> list[tuple[slice, tuple[int, int]]]:
        """The diagonal, then all before it."""
        spans = [(i * CHUNK, (i + 1) * CHUNK), *([(0, i * CHUNK)] if i else [])]
        return [(slice(*span), span) for span in spans]


def whole_rows(parts: list[Tensor]) -> Tensor:
    """Rank-ordinal layout back to token order."""
    local = [part.unflatten(0, (NUM_CHUNKS, -1)) for part in parts]  # type: ignore[no-untyped-call]
    return torch.cat(local, dim=1).flatten(0, 1)


def layer_case(dtype: torch.dtype) -> tuple[LlamaForCausalLM, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, dy = (torch.randn(SEQ_LEN, HIDDEN, generator=generator).to(dtype) for _ in range(2))
    return tiny_llama(dtype), x, dy


@pytest.mark.parametrize("fused", [PLAIN, FUSED], ids=["plain", "fused"])
@pytest.mark.parametrize("attention", ["cpu_flash", "reference"])
@pytest.mark.parametrize("size", [1, 2])
def test_streamed_layer_has_hugging_face_s_output_and_gradients(size: int, attention: str, fused: FusedKernels) -> None:
    model, x, dy = layer_case(torch.float32)
    extra = bound_engine(model, even_head_map(size), attention=attention, fused=fused)
    layer = bound_layer(model, fused=fused)
    ranks = Group(size).run(lambda runtime: LayerStream(runtime, extra, layer, x, dy).run())

    leaf = x.clone().requires_grad_()
    expected = layer_forward(model, leaf, torch.arange(SEQ_LEN))
    parameters = [weight.parameter for weight in layer.weights]
    dx, *dweights = torch.autograd.grad(expected, [leaf, *parameters], dy)
    assert close(whole_rows([rank.y for rank in ranks]), expected)
    assert close(whole_rows([rank.dx for rank in ranks]), dx)
    wgrad = torch.stack([rank.wgrad for rank in ranks]).sum(dim=0)
    for weight, grad in zip(layer.weights, dweights, strict=True):
        assert close(weight.view(wgrad), grad), weight.name


@pytest.mark.parametrize("fused", [PLAIN, FUSED], ids=["plain", "fused"])
def test_streamed_layer_in_bf16_is_as_exact_as_hugging_face_s(fused: FusedKernels) -> None:
    model, x, dy = layer_case(torch.bfloat16)
    exact = tiny_llama()
    for parameter, source in zip(exact.parameters(), model.parameters(), strict=True):
        parameter.data = source.data.float()
    layer, extra = bound_layer(model, fused=fused), bound_engine(model, fused=fused)
    (ours,) = Group(1).run(lambda runtime: LayerStream(runtime, extra, layer, x, dy).run())
    expected, theirs = (gradients_of(m, x, dy) for m in (exact, model))
    results = [ours.y, ours.dx, *(weight.view(ours.wgrad) for weight in layer.weights)]
    for ours_one, theirs_one, exact_one in zip(results, theirs, expected, strict=True):
        assert distance(ours_one, exact_one) <= 1.5 * distance(theirs_one, exact_one)


def gradients_of(model: LlamaForCausalLM, x: Tensor, dy: Tensor) -> list[Tensor]:
    """y, dx and weight gradients of Hugging Face's layer, in the order of the binding's weights."""
    dtype = next(model.parameters()).dtype
    leaf = x.to(dtype).requires_grad_()
    y = layer_forward(model, leaf, torch.arange(SEQ_LEN))
    parameters = [weight.parameter for weight in bound_layer(model).weights]
    return [y.detach(), *torch.autograd.grad(y, [leaf, *parameters], dy.to(dtype))]


def test_frozen_weights_are_skipped() -> None:
    model, x, dy = layer_case(torch.float32)
    everything = bound_layer(model)
    (full,) = Group(1).run(lambda runtime: LayerStream(runtime, bound_engine(model), everything, x, dy).run())
    model.model.layers[0].requires_grad_(False)
    frozen = bound_layer(model)
    (bare,) = Group(1).run(lambda runtime: LayerStream(runtime, bound_engine(model), frozen, x, dy).run())
    assert frozen.weights == ()
    assert bare.wgrad.numel() == 0
    assert torch.equal(bare.dx, full.dx)


def test_a_mask_that_the_kernel_does_not_have_is_refused() -> None:
    model = tiny_llama()
    call = Caller(Group(1).ranks()[0], bound_engine(model), bound_layer(model))
    q, k = torch.zeros(8, HEADS, HEAD_DIM), torch.zeros(16, KV_HEADS, HEAD_DIM)
    out = [q.clone(), torch.zeros(8, HEADS)]
    with pytest.raises(AttentionError, match="'cpu_flash' has no mask 'rectangle'"):
        call("attn", [q, k, k], out, tokens=(8, 16), kv=(0, 16), mask=Mask(kind="causal"))


# --- row tiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tiles", [2, 5, 64])
def test_row_tiles_change_no_result(tiles: int) -> None:
    """Nothing but the order of additions into the weight gradients."""
    model, x, dy = layer_case(torch.float32)
    layer = bound_layer(model)
    (whole,) = Group(1).run(lambda runtime: LayerStream(runtime, bound_engine(model), layer, x, dy).run())
    (tiled,) = Group(1).run(lambda runtime: LayerStream(runtime, bound_engine(model), layer, x, dy, tiles).run())
    assert close(tiled.y, whole.y) and close(tiled.dx, whole.dx) and close(tiled.wgrad, whole.wgrad)


def test_tiles_are_nearly_equal_rows() -> None:
    model, x, _ = layer_case(torch.float32)
    layer, sizes = bound_layer(model), list[int]()

    class Code:
        def run(self, env: dict[str, Tensor]) -> None:
            sizes.append(env["@x"].shape[0])

    seen = replace(layer, post=cast("Any", Code()))
    call = Caller(Group(1).ranks()[0], bound_engine(model), seen)
    call("post", [x[:7], torch.zeros(7, HEADS, HEAD_DIM)], [torch.empty(7, HIDDEN)], tiles=3)
    assert sizes == [2, 2, 3]


def distance(actual: Tensor, exact: Tensor) -> float:
    return float((actual.float() - exact.float()).norm())
