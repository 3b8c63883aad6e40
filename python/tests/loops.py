"""Training loops as other people have them, with a streamed model: run by ranks of the probe process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fpdt.testing.children import Result

LEARNING_RATE = 5e-3
CLIPPING = 1.0


@dataclass(frozen=True)
class Place:
    """What a loop has: `model` is a Hugging Face folder, `adapters` one of peft or none, `samples.json` has samples."""

    folder: Path
    steps: int
    accumulation: int
    replicas: int
    rank: int

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.folder / "ds_config.json").read_text())
        return config

    def samples(self) -> list[dict[str, Any]]:
        import torch

        rows = json.loads((self.folder / "samples.json").read_text())
        return [{key: torch.tensor(ids) for key, ids in row.items()} for row in rows]

    def mean_targets(self, step: int) -> float:
        """Of a micro-step of a step: the divisor that makes a step's loss the mean over its targets."""
        count = self.accumulation * self.replicas
        mine = self.samples()[step * count : (step + 1) * count]
        return sum(int((sample["labels"][1:] != -100).sum()) for sample in mine) / count

    def model(self) -> Any:
        return load_model(self.folder, "auto")


def load_model(folder: Path, dtype: Any) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype)
    adapters = folder / "adapters"
    return PeftModel.from_pretrained(model, str(adapters), is_trainable=True) if adapters.exists() else model


@contextmanager
def own_engine(place: Place) -> Iterator[tuple[Any, Any]]:
    """The streamed model of the folder in an engine of its own, and what `stream` gave."""
    import deepspeed

    import fpdt

    model = place.model()
    streamed = fpdt.stream(model, place.plan)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    engine, *_ = deepspeed.initialize(model=model, model_parameters=weights, config=place.config)
    try:
        yield engine, streamed
    finally:
        streamed.unstream()
        engine.destroy()


def own_loop(place: Place) -> Result:
    """Evaluates, generates and forms logits between steps; runs the last step again from a checkpoint."""
    import torch

    import fpdt

    losses: list[float] = []
    norms: list[float] = []
    with own_engine(place) as (engine, streamed):
        loader = iter(fpdt.data_loader(place.samples(), place.plan, shuffle=False))
        held_out = place.samples()[-1]
        own = {name: ids[None] for name, ids in held_out.items()}
        evaluations: list[list[float]] = []

        def step(number: int, batches: list[Any]) -> None:
            total = 0.0
            for batch in batches:
                loss = engine(**batch, num_items_in_batch=place.mean_targets(number)).loss
                engine.backward(loss)
                engine.step()
                total += float(loss.detach()) / len(batches)
            losses.append(_mean(total))
            if (norm := engine.get_global_grad_norm()) is not None:
                norms.append(float(norm))

        for number in range(place.steps):
            batches = [next(loader) for _ in range(place.accumulation)]
            if number == place.steps - 1:
                engine.save_checkpoint(str(place.folder / "own"))
            step(number, batches)
            engine.eval()
            with torch.no_grad():
                evaluations.append([float(engine(**own).loss), _own_loss(engine, own)])
                generated = engine.module.generate(own["input_ids"][:, :8], max_new_tokens=4, do_sample=False)
            engine.train()
        engine.load_checkpoint(str(place.folder / "own"))
        step(place.steps - 1, batches)
        upstream = streamed._micro_steps._upstream
    return {
        "losses": losses[:-1],
        "again": losses[-1],
        "norms": norms,
        "evaluations": evaluations,
        "generated": generated[0].tolist(),
        "upstream": upstream,
    }


def own_steps(place: Place) -> Result:
    """Nothing but steps, before and after logits of Hugging Face's own forward; the model is sharded as it is read."""
    import torch

    import fpdt

    losses: list[float] = []
    sharding: Any = import_module("transformers.integrations")
    config = sharding.HfDeepSpeedConfig(place.config)
    with own_engine(place) as (engine, _):
        del config
        sharding.unset_hf_deepspeed_config()
        own = {name: ids[None] for name, ids in place.samples()[-1].items()}
        engine.eval()
        with torch.no_grad():
            before = _own_loss(engine, own)
        engine.train()
        loader = iter(fpdt.data_loader(place.samples(), place.plan, shuffle=False))
        for number in range(place.steps):
            total = 0.0
            for _ in range(place.accumulation):
                loss = engine(**next(loader), num_items_in_batch=place.mean_targets(number)).loss
                engine.backward(loss)
                engine.step()
                total += float(loss.detach()) / place.accumulation
            losses.append(_mean(total))
        engine.eval()
        with torch.no_grad():
            return {"losses": losses, "own": [before, _own_loss(engine, own)]}


def _mean(loss: float) -> float:
    """Over all ranks; a sequence's have the same."""
    import torch
    import torch.distributed as dist

    total = torch.tensor([loss], dtype=torch.float64)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()


def _own_loss(engine: Any, sample: Mapping[str, Any]) -> float:
    """From the logits of Hugging Face's own forward, fp64."""
    from torch.nn import functional

    logits = engine(input_ids=sample["input_ids"]).logits[0, :-1].double()
    return float(functional.cross_entropy(logits, sample["labels"][0, 1:]))


def accelerate_loop(place: Place) -> Result:
    import torch
    from accelerate import Accelerator, DeepSpeedPlugin
    from accelerate.state import AcceleratorState

    import fpdt

    AcceleratorState._reset_state()
    accelerator = Accelerator(deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=_without_optimizer(place.config)))
    model = place.model()
    streamed = fpdt.stream(model, place.plan)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)
    loader = fpdt.data_loader(place.samples(), place.plan, shuffle=False)
    engine, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    total, losses = 0.0, []
    for number, batch in enumerate(loader):
        step = number // place.accumulation
        if step == place.steps:
            break
        with accelerator.accumulate(engine):
            loss = engine(**batch, num_items_in_batch=place.mean_targets(step)).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        total += float(loss.detach()) / place.accumulation
        if (number + 1) % place.accumulation == 0:
            losses.append(_mean(total))
            total = 0.0
    streamed.unstream()
    AcceleratorState._reset_state()
    return {"losses": losses}


def _without_optimizer(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "optimizer"} | {"zero_allow_untested_optimizer": True}


def trainer_loop(place: Place) -> Result:
    """To the end with an evaluation and a checkpoint on the way; of one sequence, then from that checkpoint again."""
    folder = place.folder / "trainer"
    whole = _train(place, folder, resumes=None)
    if place.replicas > 1:
        return whole
    # In a folder of its own: what is on a disk DeepSpeed does not write over.
    again = _train(place, place.folder / "again", resumes=folder / f"checkpoint-{place.steps - 1}")
    return {**whole, "again": again["losses"]}


def _train(place: Place, folder: Path, resumes: Path | None) -> Result:
    from accelerate.state import AcceleratorState
    from transformers import Trainer, TrainingArguments

    import fpdt

    AcceleratorState._reset_state()
    config = place.config
    is_half = bool(config.get("bf16", {}).get("enabled", False))
    args = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=place.accumulation,
        max_steps=place.steps,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=CLIPPING,
        train_sampling_strategy="sequential",
        eval_strategy="steps",
        eval_steps=place.steps - 1,
        save_strategy="steps",
        save_steps=place.steps - 1,
        logging_steps=1,
        report_to="none",
        bf16=is_half,
        use_cpu=True,
        disable_tqdm=True,
        deepspeed=_without_optimizer(config),
    )
    model = place.model()
    streamed = fpdt.stream(model, place.plan)
    samples = place.samples()
    trainer = Trainer(model=model, args=args, train_dataset=samples, eval_dataset=samples[-2:])
    streamed.feed(trainer)
    trainer.train(resume_from_checkpoint=None if resumes is None else str(resumes))
    history = trainer.state.log_history
    streamed.unstream()
    AcceleratorState._reset_state()
    return {
        "losses": [entry["loss"] for entry in history if "loss" in entry],
        "norms": [entry["grad_norm"] for entry in history if "grad_norm" in entry],
        "evaluations": [entry["eval_loss"] for entry in history if "eval_loss" in entry],
    }
