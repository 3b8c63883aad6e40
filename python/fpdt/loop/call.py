"""What a forward of a streamed model is given: read as Hugging Face would, or refused by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fpdt.data.tokens import IGNORED_LABEL
from fpdt.errors import DataError, FpdtError
from fpdt.plan import Plan

OWN_FORWARD = "leave it out; for what only Hugging Face's own forward gives, leave out labels, under torch.no_grad()"
HINTS: Mapping[str, str] = {
    "inputs_embeds": "give input_ids",
    "shift_labels": "give labels as they are: they are shifted here",
    "past_key_values": "leave it out: a streamed forward keeps no cache",
    "use_cache": "pass use_cache=False: a streamed forward keeps no cache",
    "return_dict": "take the loss from the output by its name",
}
TAKEN = frozenset({"input_ids", "labels", "attention_mask", "position_ids", "num_items_in_batch"})
HARMLESS: Mapping[str, Any] = {"return_dict": True, "logits_to_keep": 0}
"""Values that change nothing, beside None, False and what the model's own forward has for a default."""


class CallError(FpdtError):
    """A forward that a plan cannot run."""


@dataclass(frozen=True)
class Sample:
    """A whole sample, int64 [seqLen] each, on the host. Row i has token i, and token i + 1 for a target.

    `divisor`: of the sum of token losses.
    """

    token_ids: Tensor
    targets: Tensor
    divisor: float


def refuse_training_without_labels(model: nn.Module) -> None:
    """A forward whose logits somebody would differentiate is not the plan's, and does not fit where the plan does."""
    if model.training and torch.is_grad_enabled():
        raise CallError(
            "a streamed model was run without labels to train: logits of a whole sequence, which label smoothing and "
            "compute_loss_func ask for, are not formed",
            "pass labels and take the output's loss; for logits call it under torch.no_grad() or after model.eval()",
        )


def read_call(given: Mapping[str, Any], plan: Plan, signature: inspect.Signature) -> Sample:
    """Raises CallError or DataError for what is not one whole, unpadded sample of the plan's length with labels.

    Padding at the right passes: its labels are -100, and no token sees it.
    """
    _refuse_others(given, signature)
    if torch.is_autocast_enabled(plan.device):
        raise CallError("a streamed model was run under torch.autocast", "let DeepSpeed cast: bf16.enabled")
    seq_len, vocab_size = int(plan.run["seqLen"]), int(plan.model["vocabSize"])
    token_ids = _row("input_ids", given.get("input_ids"), seq_len)
    labels = _row("labels", given["labels"], seq_len)
    _check_mask(given.get("attention_mask"), labels, seq_len)
    _check_positions(given.get("position_ids"), seq_len)
    _check_range("input_ids", token_ids, vocab_size)
    targets = torch.cat([labels[1:], labels.new_full((1,), IGNORED_LABEL)])
    counted = targets[targets != IGNORED_LABEL]
    _check_range("labels", counted, vocab_size)
    items = given.get("num_items_in_batch")
    divisor = float(len(counted) if items is None else items)
    if not 0 < divisor < float("inf"):
        found = "all labels of the sample are -100" if items is None else f"num_items_in_batch is {items}"
        raise DataError(found, "leave out samples without labels")
    return Sample(token_ids, targets, divisor)


def _refuse_others(given: Mapping[str, Any], signature: inspect.Signature) -> None:
    for name, value in given.items():
        parameter = signature.parameters.get(name)
        defaults = (None, False, HARMLESS.get(name), None if parameter is None else parameter.default)
        if name not in TAKEN and not any(value is one or (type(value) is int and value == one) for one in defaults):
            raise CallError(
                f"{name} is given with labels, and a streamed forward cannot do it", HINTS.get(name, OWN_FORWARD)
            )


def _row(name: str, value: Any, seq_len: int) -> Tensor:
    if not isinstance(value, Tensor) or value.dtype.is_floating_point or value.dtype == torch.bool:
        found = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise CallError(f"{name}: expected a tensor of integers [1, {seq_len}], found {found}", "give token ids")
    if value.dim() != 2:
        raise CallError(f"{name} has the shape {list(value.shape)}, expected [1, {seq_len}]", "give one whole sample")
    if value.shape[0] != 1:
        raise CallError(
            f"{name} has a batch of {value.shape[0]} samples; a streamed forward takes one",
            "use a batch size of 1 and as many more gradient accumulation steps: the sum is the same",
        )
    if value.shape[1] != seq_len:
        raise CallError(
            f"{name} has {value.shape[1]} tokens, the plan is for {seq_len}",
            f"plan with --seq-len {value.shape[1]}"
            + ("" if value.shape[1] > seq_len else ", or pad at the right, with labels -100"),
        )
    return value[0].detach().to("cpu", torch.int64)


def _check_mask(mask: Any, labels: Tensor, seq_len: int) -> None:
    if mask is None:
        return
    if not isinstance(mask, Tensor) or tuple(mask.shape) != (1, seq_len):
        found = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise CallError(
            f"attention_mask: expected [1, {seq_len}], found {found}",
            "leave it out: attention is the model's own, causal",
        )
    seen = mask[0].detach().cpu() != 0
    num_seen = int(seen.sum())
    if not bool(seen[:num_seen].all()):
        raise CallError(
            "attention_mask has zeros before ones: padding at the left, or gaps",
            "pad at the right: padding_side='right'",
        )
    if bool((labels[num_seen:] != IGNORED_LABEL).any()):
        raise CallError("attention_mask leaves out tokens that have labels", "give padding the label -100")


def _check_positions(positions: Any, seq_len: int) -> None:
    if positions is None:
        return
    expected = torch.arange(seq_len)
    if not isinstance(positions, Tensor) or not torch.equal(positions.detach().cpu().reshape(-1), expected):
        raise CallError(
            f"position_ids are not 0 to {seq_len - 1}: packed documents, or padding at the left",
            "leave them out and give one document a sample; `fpdt run` trains packed documents",
        )


def _check_range(name: str, values: Tensor, vocab_size: int) -> None:
    wrong = values[(values < 0) | (values >= vocab_size)]
    if len(wrong):
        raise DataError(
            f"{name} have {int(wrong[0])}, outside the vocabulary of {vocab_size}", "use the tokenizer of this model"
        )
