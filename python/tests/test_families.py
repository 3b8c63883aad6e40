"""Every family's programs against Hugging Face's modules, in fp64: parameters, each kind of layer, the whole model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import pytest
import torch
from torch import Tensor

from fpdt.models.shapes import parameter_shapes
from tests.families import CASES, Built, families, random_rows, token_ids, trained
from tests.model_runs import Calls, LayerRun, run_model, slices_of, their_model

TOLERANCE = 1e-11
"""Relative to the largest value of a tensor. Measured: at most 2e-12, of a key's bias whose gradient is 0 but for
rounding, 1e-13 without it; with the casts to fp32 that transformers makes in fp64 models, which are left out, 1e-5."""


@cache
def built(name: str) -> Built:
    return Built(families()[name], torch.float64)


def check_close(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """A gradient that is 0 but for rounding, as of a key's bias, is measured by the largest of all."""
    assert actual.keys() == expected.keys()
    largest = max(float(one.abs().max()) for one in expected.values())
    errors = {
        name: float((actual[name] - one).abs().max()) / max(float(one.abs().max()), 1e-3 * largest)
        for name, one in expected.items()
    }
    wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE}
    assert not wrong


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_hugging_face_s(name: str) -> None:
    table, code = families()[name].parameters, families()[name].code
    theirs = parameter_shapes(families()[name].config, families()[name].lora)
    layers = range(len(code.class_of))
    ours = [
        (f"{code.layers}.{layer}.{row.name}", row.shape)
        for layer in layers
        for row in table.layers[code.class_of[layer]].weights
    ]
    ours += [(row.name, row.shape) for row in (*table.head, *table.embed)]
    assert len(ours) == len(dict(ours))
    tied = [] if code.lm_head.weights else [(f"{code.lm_head.module}.weight", table.embed[0].shape)]
    assert {key: list(shape) for key, shape in [*ours, *tied]} == theirs["shapes"]
    assert table.num_model_parameters == theirs["numParameters"]


def kinds_of_layers() -> Iterator[tuple[str, int]]:
    """The first layer of each kind, of windows too."""
    for name in CASES:
        one = families()[name]
        kinds = list(zip(one.code.class_of, one.windows, strict=True))
        yield from ((name, kinds.index(kind)) for kind in dict.fromkeys(kinds))


@pytest.mark.parametrize(("name", "number"), list(kinds_of_layers()))
def test_a_layer_and_its_gradients_are_hugging_face_s(name: str, number: int) -> None:
    model = built(name)
    x = random_rows(model.width("x"), torch.float64, 2).requires_grad_()
    dy = random_rows(model.width("x"), torch.float64, 3)
    weights = trained(model.modules[number])
    expected = Calls(model)(model.modules[number], x)
    grads = torch.autograd.grad(expected, [x, *weights.values()], dy)
    wgrad, dx = model.layer_region(number), dy.clone()
    with torch.no_grad():
        run = LayerRun(model, number, x.detach())
        run.backward(dx, wgrad)
    check_close({"y": run.y}, {"y": expected.detach()})
    check_close({"x": dx, **slices_of(run.layer, wgrad)}, dict(zip(["x", *weights], grads, strict=True)))


@pytest.mark.parametrize(("name", "number"), list(kinds_of_layers()))
def test_kept_products_change_rounding_alone(name: str, number: int) -> None:
    model = built(name)
    x, dy = (random_rows(model.width("x"), torch.float64, seed) for seed in (2, 3))
    found = []
    for keeps in (False, True):
        wgrad, dx = model.layer_region(number), dy.clone()
        with torch.no_grad():
            run = LayerRun(model, number, x, keeps=keeps)
            run.backward(dx, wgrad)
        found.append({"y": run.y, "x": dx, **slices_of(run.layer, wgrad)})
    # Activations of rows that do not follow each other in memory are rounded otherwise where a row ends.
    check_close(*found)


@pytest.mark.parametrize("name", CASES)
def test_the_model_s_loss_and_gradients_are_hugging_face_s(name: str) -> None:
    model = built(name)
    vocab = int(model.family.config["vocab_size"])
    ids, labels = token_ids(vocab), token_ids(vocab, seed=2)
    labels[5:9] = -100
    expected, expected_grads = their_model(model, ids, labels)
    with torch.no_grad():
        total, grads = run_model(model, ids, labels)
    check_close({"loss": total}, {"loss": expected.detach()})
    check_close(grads, expected_grads)
