"""Faults are parsed strictly, planted from outside, and hit only their target."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fpdt.measure.memory import LiveBytes
from fpdt.testing import faults
from fpdt.testing.faults import (
    Half,
    InjectedFaultError,
    Leak,
    PlainDisk,
    Scale,
    Sleep,
    Stop,
    leak_in_layers,
    parse_fault,
    slow_down,
    stop_before,
)


def test_faults_are_parsed_and_others_refused_by_form() -> None:
    assert parse_fault("") is None
    assert parse_fault("leak:100") == Leak(100)
    assert parse_fault("sleep:attn:0.05") == Sleep("attn", 0.05)
    assert parse_fault("kill:1:2") == Stop("kill", 1, 2)
    assert parse_fault("scale:1.1") == Scale(1.1)
    assert parse_fault("fp16") == Half()
    assert parse_fault("plain-disk") == PlainDisk()
    for text in ("boom", "leak:many", "kill:1", "sleep:attn"):
        with pytest.raises(ValueError, match="expected leak:BYTES"):
            parse_fault(text)


def test_without_a_fault_nothing_is_imported_or_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(faults.VARIABLE, raising=False)
    faults.install()


def test_a_slow_handler_keeps_its_signature_and_the_others_their_speed() -> None:
    calls: list[str] = []

    def handler(ctx: Any, x: Tensor, positions: Tensor) -> None:
        calls.append("a")

    other: Callable[..., None] = lambda ctx: calls.append("b")  # noqa: E731
    table: dict[str, Callable[..., None]] = {"a": handler, "b": other}
    slow_down(table, Sleep("a", 0.01))
    assert table["b"] is other
    assert inspect.signature(table["a"]) == inspect.signature(handler)
    started = time.perf_counter()
    table["a"](None, torch.empty(0), torch.empty(0))
    assert time.perf_counter() - started >= 0.01
    assert calls == ["a"]
    with pytest.raises(ValueError, match="no handler of kind c; kinds: a, b"):
        slow_down(table, Sleep("c", 0.1))


def test_a_step_fails_on_its_rank_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def run_step(self, step: int) -> int:
            return step

    stop_before(Session, Stop("raise", 1, 2))
    monkeypatch.setenv("RANK", "0")
    assert Session().run_step(2) == 2
    monkeypatch.setenv("RANK", "1")
    assert Session().run_step(1) == 1
    with pytest.raises(InjectedFaultError, match=r"rank 1 .* step 2"):
        Session().run_step(2)


class TinyDecoderLayer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_leak_counts_at_every_forward_of_a_decoder_layer() -> None:
    layer, other, x = TinyDecoderLayer(), nn.Identity(), torch.zeros(1)
    # As the worker does it: a layer's forward is replaced in place.
    layer.forward = lambda x: x  # type: ignore[method-assign]
    handle = leak_in_layers(Leak(1000))
    try:
        live = LiveBytes()
        with live:
            for module in (layer, other, layer):
                module(x)
        assert live.live_bytes == 2000
    finally:
        handle.remove()
