"""Trains a small Llama in a loop of its own: 2 CPU ranks share each sequence, as the plan says.

    npx fpdt plan --model examples/demo/model --deepspeed examples/demo/ds_config.json --gpus 2 --gpu cpu \
        --seq-len 1024 --chunks 4 --output plan.json
    torchrun --nproc-per-node 2 examples/own_loop.py plan.json README.md
"""

import json
import sys
from pathlib import Path

import deepspeed
import torch
from transformers import AutoModelForCausalLM

import fpdt

DEMO = Path(__file__).parent / "demo"
plan = fpdt.load_plan(sys.argv[1])
tokens = torch.tensor(list(Path(sys.argv[2]).read_bytes())).split(int(plan.run["seqLen"]))
samples = [{"input_ids": ids, "labels": ids} for ids in tokens[:-1]]

model = AutoModelForCausalLM.from_pretrained(DEMO / "model", dtype="float32")
fpdt.stream(model, plan)  # before deepspeed.initialize
engine, *_ = deepspeed.initialize(
    model=model,
    model_parameters=list(model.parameters()),
    config=json.loads((DEMO / "ds_config.json").read_text()),
)
loader = fpdt.data_loader(samples, plan)  # one sample a batch, the same for all ranks of a sequence
for epoch in range(2):
    loader.set_epoch(epoch)
    for batch in loader:
        loss = engine(**batch).loss
        engine.backward(loss)
        engine.step()
    with torch.no_grad():
        loss = engine(**{name: ids[None] for name, ids in samples[0].items()}).loss
    if engine.global_rank == 0:
        print(f"epoch {epoch}: loss {loss:.4f} on the first sample", flush=True)
