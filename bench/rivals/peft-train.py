#!/usr/bin/env python3
"""Times LoRA training steps with transformers + PEFT.

usage: peft-train.py MODEL_FOLDER --rows 2 --length 256 --trained-from 127 --steps 3 --dtype float32 --threads 2
       [--device cuda]
Rank 8, alpha 16 on all linear layers, AdamW, norm clipped at 1: what Anneal's side of the benchmark does too.
Prints one JSON object: step seconds (after one step of warm-up), peak memory in bytes (the GPU's
with cuda, the process's else), first loss.
"""
import argparse
import json
import resource
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--rows", type=int, default=2)
parser.add_argument("--length", type=int, default=256)
parser.add_argument("--trained-from", type=int, default=127)
parser.add_argument("--steps", type=int, default=3)
parser.add_argument("--dtype", default="float32")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--device", default="cpu")
parser.add_argument("--checkpointing", action="store_true")
options = parser.parse_args()

torch.set_num_threads(options.threads)
base = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype)).to(options.device)
base.config.use_cache = False
if options.checkpointing:
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    base.enable_input_require_grads()
model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
model.train()
trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(trainable, lr=1e-4, weight_decay=0.0)
count = options.rows * options.length
ids = ((torch.arange(count) * 37 + 11) % 40000).reshape(options.rows, options.length).to(options.device)
labels = ids.clone()
labels[:, : options.trained_from + 1] = -100

times, first_loss = [], None
for _ in range(options.steps + 1):
    start = time.perf_counter()
    loss = model(input_ids=ids, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainable, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if options.device == "cuda":
        torch.cuda.synchronize()
    times.append(time.perf_counter() - start)
    first_loss = loss.item() if first_loss is None else first_loss
peak = (
    torch.cuda.max_memory_reserved()
    if options.device == "cuda"
    else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
)
print(json.dumps({"seconds": times[1:], "peakBytes": peak, "firstLoss": first_loss}))
