"""Trains a small Llama with `transformers.Trainer`: 2 CPU ranks share each sequence. Three lines name fpdt.

    npx fpdt plan --model examples/demo/model --deepspeed examples/demo/ds_config.json --gpus 2 --gpu cpu \
        --seq-len 1024 --chunks 4 --output plan.json
    torchrun --nproc-per-node 2 examples/trainer.py plan.json README.md trained
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

import fpdt

DEMO = Path(__file__).parent / "demo"
plan, text, folder = sys.argv[1:4]
tokens = torch.tensor(list(Path(text).read_bytes())).split(1024)
samples = [{"input_ids": ids, "labels": ids} for ids in tokens[:-1]]

args = TrainingArguments(
    output_dir=folder,
    per_device_train_batch_size=1,
    per_device_eval_batch_size=1,
    num_train_epochs=2,
    learning_rate=1e-3,
    weight_decay=0.01,
    lr_scheduler_type="constant",
    eval_strategy="epoch",
    save_strategy="no",
    logging_strategy="epoch",
    report_to="none",
    use_cpu=True,
    deepspeed=str(DEMO / "ds_config.json"),
)
model = AutoModelForCausalLM.from_pretrained(DEMO / "model", dtype="float32")
streamed = fpdt.stream(model, plan)
trainer = Trainer(model=model, args=args, train_dataset=samples, eval_dataset=samples[:1])
streamed.feed(trainer)
trainer.train()
trainer.save_model(folder)
