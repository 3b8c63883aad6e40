"""What a streamed model refuses between ranks, each tried on the ranks of the probe process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fpdt.testing.children import Result
from tests.loops import Place, own_engine


def refusals(place: Place) -> Result:
    """By what was wrong the errors of all ranks; then that training goes on, and that `unstream` undoes it."""
    answers = _before_there_is_an_engine(place)
    answers.update(_with_another_config(place))
    with own_engine(place) as (engine, streamed):
        answers.update(_samples(place, engine))
        batch = _batch(place, 0)
        answers["loss"] = float(engine(**batch).loss.detach())
        streamed.unstream()
        engine.eval()
        answers["own loss"] = _own_loss(engine, batch)
        answers["after initialize"] = on_all_ranks(lambda: _stream(engine.module, place))
    return answers


def _before_there_is_an_engine(place: Place) -> Result:
    model = place.model()
    streamed = _stream(model, place)
    answers = {
        "no engine": on_all_ranks(lambda: model(**_batch(place, 0))),
        "streamed twice": on_all_ranks(lambda: _stream(model, place)),
    }
    streamed.unstream()
    streamed.unstream()
    assert not any("forward" in module.__dict__ or getattr(module, "_z3_leaf", False) for module in model.modules())
    return answers


def _with_another_config(place: Place) -> Result:
    import deepspeed

    model = place.model()
    streamed = _stream(model, place)
    config = place.config
    config["zero_optimization"]["reduce_bucket_size"] *= 2
    engine, *_ = deepspeed.initialize(model=model, model_parameters=list(model.parameters()), config=config)
    answers = {"other settings": on_all_ranks(lambda: engine(**_batch(place, 0)))}
    streamed.unstream()
    engine.destroy()
    return answers


def _samples(place: Place, engine: Any) -> Result:
    import torch

    engine.train()  # from_pretrained leaves a model in eval mode.
    first, second = (_batch(place, number) for number in (0, 1))
    other_labels = {**first, "labels": second["labels"]}
    mask = torch.ones_like(first["input_ids"])
    mask[0, 0] = 0
    padded = {**first, "attention_mask": mask}
    is_first = place.rank == 0

    def backward_of_an_older_forward() -> None:
        loss = engine(**first).loss
        with torch.no_grad():
            engine(**second)
        engine.backward(loss)

    return {
        "different samples": on_all_ranks(lambda: engine(**(first if is_first else second))),
        "different labels": on_all_ranks(lambda: engine(**(first if is_first else other_labels))),
        "refused by one": on_all_ranks(lambda: engine(**(first if is_first else padded))),
        "no labels": on_all_ranks(lambda: engine(input_ids=first["input_ids"])),
        "an older forward": on_all_ranks(backward_of_an_older_forward),
    }


def on_all_ranks(work: Callable[[], Any]) -> list[str]:
    """The error of each rank, its class and message."""
    import torch.distributed as dist

    try:
        work()
        found = "nothing"
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    if not dist.is_initialized():
        return [found]
    errors: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(errors, found)
    return errors


def _stream(model: Any, place: Place) -> Any:
    import fpdt

    return fpdt.stream(model, place.plan)


def _batch(place: Place, number: int) -> dict[str, Any]:
    return {name: ids[None] for name, ids in place.samples()[number].items()}


def _own_loss(engine: Any, batch: dict[str, Any]) -> float:
    import torch

    with torch.no_grad():
        output = engine(**batch)
    assert output.logits is not None
    return float(output.loss)
