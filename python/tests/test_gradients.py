"""Gradients through autograd's view of a streamed model, against the untouched Hugging Face model in fp64."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fpdt.data.batches import open_batches
from fpdt.data.options import DataOptions
from fpdt.data.whole import plan_sequences
from fpdt.devices import CopyMode, plan_runtime
from fpdt.errors import ScheduleError
from fpdt.models.build import DTYPES, build_model
from fpdt.ops import HANDLERS
from fpdt.plan import Plan
from fpdt.run.autograd import StaleBackwardError
from fpdt.run.executor import Executor
from fpdt.run.gradients import gradient_file, write_gradients
from fpdt.run.kernels import plan_kernels
from fpdt.run.parameters import WeightSlice
from fpdt.run.planned_batches import BatchSource, PlannedBatches
from fpdt.run.program import EmittedGradients, LossScale
from fpdt.run.stream import CopiedModelError, stream
from fpdt.run.zero import LayerWeights
from fpdt.testing.fake_cuda.products import half_products
from fpdt.testing.reference import token_loss_sum
from tests.hand_plan import HandPlan
from tests.planned import write_data

TOLERANCE = 5e-6


STAGE_0 = {"zero_optimization": {"stage": 0}}


def built(plan: Plan, dtype: torch.dtype, with_buffers: bool = False) -> nn.Module:
    """With the buffers where its own forward is called."""
    config, seed = plan.model["hfConfig"], int(plan.run["seed"])
    return build_model(config, seed, dtype, layers=plan.code.layers, with_buffers=with_buffers)


class Streamed:
    """A streamed model without DeepSpeed: plain autograd accumulates into `grad`."""

    def __init__(self, plan: Plan, batches: BatchSource, copy_mode: CopyMode = "eager") -> None:
        self.runtime = runtime = plan_runtime(plan, copy_mode=copy_mode)
        self.model: Any = built(plan, DTYPES[plan.run["dtype"]])
        self.executor = Executor(plan, runtime, HANDLERS, runtime.make_recorder(plan.kind_names, 0))
        self.streamed = stream(self.model, plan, plan_kernels(plan), runtime.device)
        self.program = self.streamed.attach(self.executor, LayerWeights(self.model, self.streamed.modules, {}))
        self.batches: BatchSource = PlannedBatches(plan, batches)

    def loss(self, scale: LossScale, *, same_upstream: bool = False) -> Tensor:
        self.program.begin_micro_step(lambda: self.batches.read(0, 0), scale, same_upstream=same_upstream)
        return self.forward()

    def forward(self) -> Tensor:
        return self.streamed.run(torch.zeros(1, requires_grad=True))


@pytest.fixture(scope="module", params=["untied", "tied", "rebuilt in tiles"])
def plan(request: pytest.FixtureRequest) -> Plan:
    is_rebuilt = request.param == "rebuilt in tiles"
    hand = HandPlan(STAGE_0, tied=request.param == "tied", rebuild=is_rebuilt, tiles=5 if is_rebuilt else 1)
    return hand.build()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def streamed(plan: Plan, data: Path, copy_mode: CopyMode = "eager") -> Streamed:
    return Streamed(plan, open_batches(plan, DataOptions(data), 0), copy_mode)


def expected(plan: Plan, data: Path, factor: float) -> dict[str, Tensor]:
    """Gradients of factor * mean token loss, fp64."""
    model = built(plan, torch.float64, with_buffers=True)
    tokens = plan_sequences(plan, data).whole(0, 0, 0)
    (token_loss_sum(model, tokens) * (factor / (len(tokens) - 1))).backward()  # type: ignore[no-untyped-call]
    return gradients(model)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.double() for name, weight in model.named_parameters() if weight.grad is not None}


def worst_error(found: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    assert found.keys() == reference.keys()
    return max(float((found[name] - grad).norm() / grad.norm()) for name, grad in reference.items())


def one_rank(plan: Plan, loss_scale: float = 1.0) -> LossScale:
    return LossScale(1, 1, loss_scale, int(plan.run["seqLen"]))


UPSTREAM: dict[str, tuple[float, float, Callable[[Tensor], Tensor]]] = {
    "as assumed": (1.0, 1.0, lambda loss: loss),
    "three times": (1.0, 3.0, lambda loss: loss * 3),
    "scaled as assumed": (65536.0, 65536.0, lambda loss: loss * 65536),
    "scaled, not assumed": (1.0, 65536.0, lambda loss: loss * 65536),
    "squared": (1.0, -1.0, lambda loss: loss**2),
}


@pytest.mark.parametrize("case", UPSTREAM)
def test_gradients_are_exact_for_any_upstream_gradient(plan: Plan, data: Path, case: str) -> None:
    loss_scale, factor, wrap = UPSTREAM[case]
    ours = streamed(plan, data)
    loss = ours.loss(one_rank(plan, loss_scale))
    wrap(loss).backward()  # type: ignore[no-untyped-call]
    reference = expected(plan, data, 2 * loss.item() if factor < 0 else factor)
    assert worst_error(gradients(ours.model), reference) < TOLERANCE


def test_weight_gradients_of_a_half_dtype_are_as_exact_with_every_kernel(data: Path) -> None:
    """Of a whole step: layers, a head of its own and norms; the weights themselves are rounded."""
    errors = {}
    for name in ("plain", "blocks", "addmm"):
        hand = HandPlan(STAGE_0, dtype="bfloat16")
        hand.overrides["kernels"] = {**hand.kernels, "fused": {"weightGradient": name, "blockBytes": 700}}
        plan = hand.build()
        with half_products():
            ours = streamed(plan, data)
            ours.loss(one_rank(plan)).backward()  # type: ignore[no-untyped-call]
        errors[name] = worst_error(gradients(ours.model), expected(plan, data, 1.0))
    assert errors["blocks"] == pytest.approx(errors["plain"], rel=0.02) and errors["plain"] < 0.05
    assert 0 < errors["addmm"] <= 1.02 * errors["plain"]


@pytest.mark.parametrize("copy_mode", ["lazy", "random"])
def test_gradients_are_the_same_in_every_order(plan: Plan, data: Path, copy_mode: CopyMode) -> None:
    ours = streamed(plan, data, copy_mode)
    ours.loss(one_rank(plan)).backward()  # type: ignore[no-untyped-call]
    ours.program.finish_step(lambda: None)
    assert worst_error(gradients(ours.model), expected(plan, data, 1.0)) < TOLERANCE


def test_gradients_accumulate_over_forwards(plan: Plan, data: Path) -> None:
    ours = streamed(plan, data)
    for _ in range(2):
        ours.loss(one_rank(plan)).backward()  # type: ignore[no-untyped-call]
    assert worst_error(gradients(ours.model), expected(plan, data, 2.0)) < TOLERANCE


@pytest.mark.parametrize(("factor", "num_differing"), [(3.0, 0), (2.0, 1)])
def test_an_upstream_gradient_that_is_said_to_be_the_same_is_checked_afterwards(
    plan: Plan, data: Path, factor: float, num_differing: int
) -> None:
    ours = streamed(plan, data)
    (ours.loss(one_rank(plan)) * 3).backward()  # type: ignore[no-untyped-call]
    (ours.loss(one_rank(plan), same_upstream=True) * factor).backward()  # type: ignore[no-untyped-call]
    assert int(ours.program.num_differing_upstreams) == num_differing
    # The second one's gradients are those of the first's scale.
    assert worst_error(gradients(ours.model), expected(plan, data, 6.0)) < TOLERANCE
    ours.loss(one_rank(plan)).backward()  # type: ignore[no-untyped-call]
    assert int(ours.program.num_differing_upstreams) == 0


def test_modules_keep_their_names(plan: Plan, data: Path) -> None:
    untouched = built(plan, torch.float32)
    assert list(streamed(plan, data).model.state_dict()) == list(untouched.state_dict())


def test_a_second_backward_of_one_forward_is_refused(plan: Plan, data: Path) -> None:
    loss = streamed(plan, data).loss(one_rank(plan))
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(StaleBackwardError, match="the loss ran twice"):
        loss.backward()  # type: ignore[no-untyped-call]


def test_a_second_forward_before_its_backward_is_refused(plan: Plan, data: Path) -> None:
    ours = streamed(plan, data)
    loss = ours.loss(one_rank(plan))
    with pytest.raises(StaleBackwardError, match="a second forward before the backward of the first"):
        ours.forward()
    loss.backward()  # type: ignore[no-untyped-call]
    assert worst_error(gradients(ours.model), expected(plan, data, 1.0)) < TOLERANCE


def test_modules_out_of_their_order_are_refused(plan: Plan, data: Path) -> None:
    ours = streamed(plan, data)
    ours.program.begin_micro_step(lambda: ours.batches.read(0, 0), one_rank(plan))
    layer = ours.model.model.layers[1]
    ours.streamed.is_running = True
    with pytest.raises(ScheduleError, match="layer 1 forward was asked for; the plan's next turn is embed forward"):
        layer(torch.zeros(1, requires_grad=True))


def test_a_forward_without_a_batch_is_refused(plan: Plan, data: Path) -> None:
    with pytest.raises(RuntimeError, match="begin_micro_step"):
        streamed(plan, data).forward()


def test_a_backward_after_another_forward_is_refused(plan: Plan, data: Path) -> None:
    ours = streamed(plan, data)
    first, second = (ours.loss(one_rank(plan)) for _ in range(2))
    with pytest.raises(StaleBackwardError, match="the loss of forward 1, and forward 2 has run since"):
        first.backward()  # type: ignore[no-untyped-call]
    second.backward()  # type: ignore[no-untyped-call]
    assert worst_error(gradients(ours.model), expected(plan, data, 1.0)) < TOLERANCE


def test_a_streamed_model_is_neither_copied_nor_pickled(plan: Plan, data: Path) -> None:
    ours = streamed(plan, data)
    for copies, what in ((copy.deepcopy, "copied"), (pickle.dumps, "pickled")):
        with pytest.raises(CopiedModelError, match=f"a streamed model cannot be {what}"):
            copies(ours.model)
    ours.streamed.undo()
    assert all("forward" not in module.__dict__ for module in ours.model.modules())
    assert list(copy.deepcopy(ours.model).state_dict()) == list(ours.model.state_dict())


def test_emitted_gradients_are_cast_once_and_taken_once() -> None:
    weight = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.bfloat16))
    emitted = EmittedGradients()
    emitted.expect([WeightSlice("w", weight, (2, 2), 1, 4)])
    with pytest.raises(RuntimeError, match="without emitGrads"):
        emitted.take()
    emitted(torch.arange(5, dtype=torch.float32))
    with pytest.raises(RuntimeError, match="second emitGrads"):
        emitted(torch.zeros(5))
    (gradient,) = emitted.take()
    assert gradient.dtype == torch.bfloat16
    assert gradient.tolist() == [[1, 2], [3, 4]]


def test_gradient_files_are_named_by_step(tmp_path: Path) -> None:
    write_gradients({"w": torch.ones(2, 2).t()}, tmp_path / "new", 12)
    assert gradient_file(tmp_path / "new", 12).name == "step-000012.safetensors"
    assert gradient_file(tmp_path / "new", 12).is_file()
