"""The calls of FlashAttention-2's own ops: their schema and their arguments."""

from __future__ import annotations

import pytest
import torch

from fpdt.attention import backend_named
from tests.attention_cases import CASES, CONFIG, WHOLE, Case, case_id, tensors, window
from tests.fake_flash2 import Named


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_calls_of_flash2_fit_the_schema_and_give_rows_first(case: Case) -> None:
    """On meta tensors, which have torch's own checks of arguments and shapes."""
    q, k, v, do = (x.to("meta") for x in tensors(case, 4, 2, torch.bfloat16))
    backend, start = backend_named("flash2"), (case.queries[0], case.keys[0])
    o, lse = backend.forward(q, k, v, CONFIG, case.mask, *start)
    assert (o.shape, lse.shape, lse.dtype) == (q.shape, q.shape[:2], torch.float32)
    grads = backend.backward(do, q, k, v, o, lse, CONFIG, case.mask, *start)
    assert [grad.shape for grad in grads] == [q.shape, k.shape, v.shape]


def test_arguments_of_flash2(flash2_calls: list[Named]) -> None:
    """The window's sizes in the kernel's words; a negative size would mean no limit."""
    asked: list[tuple[int, bool, int | None, int | None]] = []
    for case in (WHOLE[0], WHOLE[1], window(5, (14, 23), (0, 23)), window(7, (14, 23), (3, 14))):
        q, k, v, do = tensors(case, 4, 2, torch.bfloat16)
        start = (case.queries[0], case.keys[0])
        backend = backend_named("flash2")
        o, lse = backend.forward(q, k, v, CONFIG, case.mask, *start)
        backend.backward(do, q, k, v, o, lse, CONFIG, case.mask, *start)
        forward, backward = flash2_calls[-2:]
        asked.append(mask_arguments(forward))
        assert mask_arguments(backward) == asked[-1]
        assert forward["return_debug_mask"] is False and forward["scale"] == backward["scale"] == CONFIG.scale
    assert asked == [(9, False, None, None), (9, True, None, None), (9, False, 4, 0), (6, False, 0, 6)]


def mask_arguments(call: Named) -> tuple[int, bool, int | None, int | None]:
    return call["max_q"], call["is_causal"], call["window_size_left"], call["window_size_right"]
