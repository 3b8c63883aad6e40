"""What a forward of a streamed model may be given, and which samples ranks are given; without ranks."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

import fpdt
from fpdt.errors import DataError, FpdtError
from fpdt.loop.call import CallError, Sample, read_call, refuse_training_without_labels
from fpdt.loop.feed import feed
from fpdt.loop.micro_steps import GroupScale, rows_of
from fpdt.loop.sampler import SequenceGroupSampler, data_loader
from fpdt.plan import Plan
from fpdt.run.ranks import RankError
from tests.hand_plan import HandPlan
from tests.planned import ZERO_3


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Two replicas of two ranks."""
    hand = HandPlan({"zero_optimization": ZERO_3}, num_ranks=2)
    hand.overrides["numRanks"] = 4
    hand.overrides["run"]["dataParallelSize"] = 2
    hand.overrides["layout"]["sequenceGroups"] = [[0, 1], [2, 3]]
    return hand.build()


def forward(
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    labels: Tensor | None = None,
    logits_to_keep: int = 0,
    **kwargs: Any,
) -> None:
    """As models of transformers have it."""


SIGNATURE = inspect.signature(forward)


def ids(plan: Plan, count: int | None = None) -> Tensor:
    return (torch.arange(int(plan.run["seqLen"]) if count is None else count) % int(plan.model["vocabSize"]))[None]


def read(plan: Plan, **given: Any) -> Sample:
    return read_call({"input_ids": ids(plan), "labels": ids(plan), **given}, plan, SIGNATURE)


def test_labels_are_shifted_and_counted(plan: Plan) -> None:
    labels = ids(plan)
    labels[0, :3] = -100
    found = read(plan, labels=labels)
    assert torch.equal(found.token_ids, ids(plan)[0])
    assert torch.equal(found.targets, torch.cat([labels[0, 1:], torch.tensor([-100])]))
    assert found.divisor == labels.shape[1] - 3
    assert read(plan, num_items_in_batch=torch.tensor(12)).divisor == 12


def test_what_changes_nothing_passes(plan: Plan) -> None:
    mask = torch.ones_like(ids(plan))
    mask[0, -2:] = 0
    labels = ids(plan).masked_fill(mask == 0, -100)
    harmless = {"use_cache": False, "past_key_values": None, "logits_to_keep": 0, "return_dict": True}
    found = read(plan, labels=labels, attention_mask=mask, position_ids=torch.arange(mask.shape[1])[None], **harmless)
    assert found.divisor == mask.shape[1] - 3


@dataclass(frozen=True)
class Bad:
    given: Any
    message: str
    hint: str


BAD = {
    "no ids": Bad(lambda plan: {"input_ids": None}, "input_ids: expected a tensor of integers", "give token ids"),
    "floats": Bad(lambda plan: {"input_ids": ids(plan).float()}, "found a tensor of torch.float32", "give token ids"),
    "one dimension": Bad(lambda plan: {"labels": ids(plan)[0]}, r"labels has the shape \[", "one whole sample"),
    "two samples": Bad(
        lambda plan: {"input_ids": ids(plan).repeat(2, 1)}, "a batch of 2 samples", "gradient accumulation steps"
    ),
    "too short": Bad(lambda plan: {"input_ids": ids(plan, 3)}, "input_ids has 3 tokens, the plan is for", "pad at the"),
    "too long": Bad(lambda plan: {"input_ids": ids(plan, 5000)}, "has 5000 tokens", "--seq-len 5000"),
    "left padding": Bad(
        lambda plan: {"attention_mask": torch.cat([torch.zeros(1, 1), torch.ones_like(ids(plan))[:, 1:]], 1)},
        "attention_mask has zeros before ones",
        "padding_side='right'",
    ),
    "padding with labels": Bad(
        lambda plan: {"attention_mask": torch.cat([torch.ones_like(ids(plan))[:, 1:], torch.zeros(1, 1)], 1)},
        "leaves out tokens that have labels",
        "-100",
    ),
    "a mask of another shape": Bad(
        lambda plan: {"attention_mask": torch.ones(1, 1, 4, 4)}, r"found \[1, 1, 4, 4\]", "leave it out"
    ),
    "positions of documents": Bad(
        lambda plan: {"position_ids": ids(plan) % 7}, "position_ids are not 0 to", "one document a sample"
    ),
    "an id outside": Bad(lambda plan: {"input_ids": ids(plan) + 1}, "outside the vocabulary", "the tokenizer of this"),
    "a label outside": Bad(lambda plan: {"labels": ids(plan) - 1}, "labels have -1, outside", "the tokenizer of this"),
    "no target": Bad(lambda plan: {"labels": torch.full_like(ids(plan), -100)}, "all labels", "leave out samples"),
    "no items": Bad(lambda plan: {"num_items_in_batch": 0}, "num_items_in_batch is 0", "leave out samples"),
    "attentions": Bad(lambda plan: {"output_attentions": True}, "output_attentions is given", r"torch.no_grad\(\)"),
    "a cache": Bad(lambda plan: {"use_cache": True}, "use_cache is given with labels", "use_cache=False"),
    "embeddings": Bad(lambda plan: {"inputs_embeds": torch.zeros(1)}, "inputs_embeds is given", "give input_ids"),
    "some logits": Bad(lambda plan: {"logits_to_keep": 1}, "logits_to_keep is given", "leave it out"),
    "shifted labels": Bad(lambda plan: {"shift_labels": ids(plan)}, "shift_labels is given", "they are shifted here"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_plan_cannot_do_is_refused_by_name(plan: Plan, case: str) -> None:
    bad = BAD[case]
    with pytest.raises(FpdtError, match=bad.message) as caught:
        read(plan, **bad.given(plan))
    assert isinstance(caught.value, CallError | DataError)
    assert bad.hint.replace("\\", "") in caught.value.hint


def test_autocast_is_refused(plan: Plan) -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(CallError, match=r"under torch\.autocast"):
        read(plan)


def test_training_without_labels_is_refused() -> None:
    model = nn.Module()
    with torch.no_grad():
        refuse_training_without_labels(model)
    refuse_training_without_labels(model.eval())
    with pytest.raises(CallError, match="label smoothing and compute_loss_func") as caught:
        refuse_training_without_labels(model.train())
    assert "torch.no_grad()" in caught.value.hint


def test_rows_after_the_end_of_a_sample_are_padding() -> None:
    sample = Sample(torch.tensor([5, 6, 7]), torch.tensor([6, 7, -100]), 2.0)
    batch = rows_of(sample, torch.tensor([1, 2, 3]))
    assert batch.token_ids.tolist() == [6, 7, 0]
    assert batch.labels.tolist() == [7, -100, -100]
    assert batch.positions.tolist() == [1, 2, 3]


def test_a_rank_alone_forms_the_gradient_of_its_loss() -> None:
    scale = GroupScale(divisor=8.0, upstream=0.5, group=None)
    assert float(scale.loss_of(torch.tensor(4.0))) == 0.5
    assert scale.gradient_factor == 0.5 / 8


def orders(plan: Plan, dataset: Sequence[int], **options: Any) -> list[list[int]]:
    return [list(SequenceGroupSampler(dataset, plan, rank=rank, **options)) for rank in range(4)]


def test_ranks_of_a_sequence_are_given_the_same_samples(plan: Plan) -> None:
    assert orders(plan, range(7), shuffle=False) == [[0, 2, 4], [0, 2, 4], [1, 3, 5], [1, 3, 5]]
    shuffled = orders(plan, range(7), seed=3)
    assert shuffled[0] == shuffled[1] != shuffled[2] == shuffled[3]
    assert len({*shuffled[0], *shuffled[2]}) == 6


def test_epochs_have_orders_of_their_own_and_are_gone_on_with(plan: Plan) -> None:
    sampler = SequenceGroupSampler(range(40), plan, rank=0)
    epochs = [list(sampler)]
    sampler.set_epoch(1)
    epochs.append(list(sampler))
    assert epochs[0] != epochs[1]
    sampler.set_epoch(1, start=15)
    assert len(sampler) == 5
    assert list(sampler) == epochs[1][15:]
    with pytest.raises(DataError, match="an epoch has 20 samples a group, 21 are"):
        sampler.set_epoch(1, start=21)


def test_a_sampler_of_too_few_samples_or_another_rank_is_refused(plan: Plan) -> None:
    with pytest.raises(DataError, match="the dataset has 1 samples, and 2 groups"):
        SequenceGroupSampler(range(1), plan, rank=0)
    with pytest.raises(RankError, match="the plan has 4 ranks, none of them 4"):
        SequenceGroupSampler(range(9), plan, rank=4)


class Endless(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(int, 1)


def test_a_loader_is_of_single_samples_with_numbers(plan: Plan) -> None:
    loader = data_loader(list(range(40)), plan, shuffle=False, rank=2)
    assert torch.cat(list(loader)).tolist() == list(range(1, 40, 2))
    with pytest.raises(DataError, match="Endless has no length"):
        data_loader(Endless(), plan, rank=0)
    for option in ({"batch_size": 2}, {"drop_last": True}, {"sampler": range(3)}):
        with pytest.raises(DataError, match=f"data_loader was given {next(iter(option))}"):
            data_loader(range(9), plan, rank=0, **option)
    assert len(data_loader(range(9), plan, rank=0, batch_size=1)) == 4


def test_a_loader_that_goes_on_inside_an_epoch_has_its_order(plan: Plan) -> None:
    """As a Trainer resumes: accelerate's loader around the batch sampler, told the epoch through it."""
    from accelerate import skip_first_batches

    loader = data_loader(range(40), plan, rank=0)
    loader.set_epoch(2)
    whole = torch.cat(list(loader)).tolist()
    loader.set_epoch(0)
    rest = skip_first_batches(loader, 15)
    rest.batch_sampler.batch_sampler.set_epoch(2)
    assert torch.cat(list(rest)).tolist() == whole[15:]


class FakeTrainer:
    """What `feed` asks of a Trainer."""

    def __init__(self, batch_size: int = 1, strategy: str = "random") -> None:
        sizes = {"per_device_train_batch_size": batch_size, "per_device_eval_batch_size": batch_size}
        self.args = SimpleNamespace(train_sampling_strategy=strategy, data_seed=None, seed=3, **sizes)

    def get_train_dataloader(self) -> DataLoader[Any]:
        dataset: Any = list(range(9))
        return DataLoader(dataset, num_workers=0, collate_fn=lambda batch: [2 * one for one in batch])

    def get_eval_dataloader(self, dataset: Any = None) -> DataLoader[Any]:
        held_out: Any = list(range(5)) if dataset is None else dataset
        return DataLoader(held_out)

    get_test_dataloader = get_eval_dataloader


def test_a_fed_trainer_keeps_datasets_and_collators(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RANK", "1")
    trainer = FakeTrainer()
    feed(trainer, plan)
    expected = [[2 * number] for number in SequenceGroupSampler(range(9), plan, seed=3, rank=0)]
    assert list(trainer.get_train_dataloader()) == expected
    assert torch.cat(list(trainer.get_eval_dataloader())).tolist() == [0, 2]
    assert "1 samples do not fill a round" in caplog.text
    assert torch.cat(list(trainer.get_test_dataloader([7, 8]))).tolist() == [7]


def test_a_trainer_that_cannot_be_fed_is_refused(plan: Plan) -> None:
    trainer = FakeTrainer(batch_size=2)
    feed(trainer, plan)
    with pytest.raises(DataError, match="per_device_train_batch_size is 2"):
        trainer.get_train_dataloader()
    with pytest.raises(DataError, match="train_sampling_strategy is 'group_by_length'"):
        feed(FakeTrainer(strategy="group_by_length"), plan)


def test_the_package_names_what_it_has() -> None:
    assert fpdt.data_loader is data_loader
    assert {"stream", "load_plan"} <= {name for name in fpdt.__all__ if callable(getattr(fpdt, name))}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fpdt.nothing  # noqa: B018
