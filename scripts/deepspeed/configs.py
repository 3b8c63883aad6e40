"""What the installed DeepSpeed makes of ds_configs, once Hugging Face's integration has filled "auto": JSON in and out.

In: a list of {"config": object} or {"text": "..."}, with "replicas", "hiddenSize", "numSteps", "dtype" and, without
"fill", no filling. Out: for each {"error": text} or the effective values of DeepSpeed's own config object.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from types import SimpleNamespace
from typing import Any

STDOUT = os.dup(1)
os.dup2(2, 1)

import hjson  # noqa: E402
import torch  # noqa: E402
from deepspeed.runtime import config as ds  # noqa: E402
from deepspeed.runtime.config_utils import dict_raise_error_on_duplicate_keys  # noqa: E402
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig  # noqa: E402

BATCH = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def say(asked: dict[str, Any]) -> dict[str, Any]:
    ds.dist.get_rank = lambda *_: 0
    ds.dist.get_world_size = lambda *_: asked.get("replicas", 1)
    try:
        return effective(ds.DeepSpeedConfig(filled(asked) if asked.get("fill") else asked["config"]))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:400]}


def filled(asked: dict[str, Any]) -> dict[str, Any]:
    """The config as `Trainer` would hand it to DeepSpeed; batch sizes that are "auto" are left to DeepSpeed."""
    config = read(asked)
    for key in ("sequence_parallel_size", "data_parallel_size"):
        config.pop(key, None)
    for key in BATCH:
        if config.get(key) == "auto":
            del config[key]
    if all(config.get(key) is None for key in BATCH[:2]):
        config["train_micro_batch_size_per_gpu"] = 1
    if isinstance(config.get("zero_optimization"), bool):
        return config  # An old form, which the integration does not know.
    params = (config.get("optimizer") or {}).get("params") or {}
    rate = params.get("lr", "auto")
    args = SimpleNamespace(
        world_size=asked["replicas"],
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        max_grad_norm=1.0,
        learning_rate=5e-5 if rate == "auto" else rate,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=0.0,
        save_on_each_node=False,
        fp16=asked["dtype"] == "float16",
        fp16_full_eval=False,
        bf16=asked["dtype"] == "bfloat16",
        bf16_full_eval=False,
        get_warmup_steps=lambda _: 0,
    )
    trainer = HfTrainerDeepSpeedConfig(config)
    trainer.trainer_config_process(args)
    trainer.mismatches = []
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=asked["hiddenSize"]))
    fill = trainer.fill_match
    trainer.fill_match = lambda key, value, *rest, **more: fill(key, value, must_match=False)
    trainer.trainer_config_finalize(args, model, asked["numSteps"])
    return dict(trainer.config)


def read(asked: dict[str, Any]) -> dict[str, Any]:
    """As DeepSpeed reads a file, so that errors of the text are its own."""
    if "text" not in asked:
        return dict(asked["config"])
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(asked["text"])
        file.flush()
        with open(file.name) as again:
            return dict(hjson.load(again, object_pairs_hook=dict_raise_error_on_duplicate_keys))


def effective(config: Any) -> dict[str, Any]:
    fp16, bf16 = config.float16_config, config.bfloat16_config
    return {
        "stage": int(config.zero_optimization_stage),
        "dtype": "float16" if fp16.enabled else "bfloat16" if bf16.enabled else "float32",
        "gradientClipping": config.gradient_clipping,
        "sequencesPerStep": config.train_batch_size,
        "sequencesPerReplica": config.train_micro_batch_size_per_gpu * config.gradient_accumulation_steps,
        "communicationDtype": DTYPES.get(config.communication_data_type),
        "gradAccumDtype": config.grad_accum_dtype,
        "lossScale": fp16.loss_scale if fp16.enabled else None,
        "scheduler": config.scheduler_name,
        "schedulerParams": config.scheduler_params,
        "optimizer": config.optimizer_name,
        "optimizerParams": config.optimizer_params,
        "zero": config.zero_config.model_dump(mode="json"),
    }


def main() -> None:
    said = [say(asked) for asked in json.load(sys.stdin)]
    with os.fdopen(STDOUT, "w") as file:
        json.dump(said, file)


main()
