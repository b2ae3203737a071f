#!/usr/bin/env python3
"""Trains and answers in bfloat16 as PEFT and LLaMA-Factory do with `bf16: true`: the base's weights, and so its residuals, are
bfloat16, the adapter's are float32, products run under autocast.

usage: judge-bfloat16.py BASE_FOLDER ADAPTER_FOLDER REFERENCE_FOLDER PEAK_RATE STEPS OUTPUT.safetensors
Writes to OUTPUT the gradients of the mean loss of batch 0 ('grad.NAME'), the losses of STEPS steps ('losses': AdamW without
decay, a warm-up of a tenth, cosine, norm clipped at 1) and the base's logits of batch 0 ('logits').
"""
import math
import sys

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

base_folder, adapter_folder, reference_folder, peak, steps, output = sys.argv[1:7]
peak, steps = float(peak), int(steps)
with safe_open(f"{reference_folder}/reference.safetensors", "pt") as reference:
    fields = ("input_ids", "labels", "attention_mask")
    batches = [{f: reference.get_tensor(f"batch.{i:02d}.{f}") for f in fields} for i in range(steps)]


def load():
    return AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.bfloat16, attn_implementation="eager")


with torch.no_grad():
    first = {f: batches[0][f] for f in ("input_ids", "attention_mask")}
    results = {"logits": load().eval()(**first).logits.float()}
model = PeftModel.from_pretrained(load(), adapter_folder, is_trainable=True).train()
model.config.use_cache = False
trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
assert all(p.dtype == torch.float32 for p in trained.values())


def loss_of(batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model(**batch).loss


loss_of(batches[0]).backward()
for name, p in trained.items():
    results[f"grad.{name}"] = p.grad.clone()
    p.grad = None
optimizer = torch.optim.AdamW(trained.values(), lr=peak, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
warmup, losses = max(1, steps // 10), []
for i, batch in enumerate(batches):
    scale = i / warmup if i < warmup else 0.5 * (1 + math.cos(math.pi * (i - warmup) / (steps - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = peak * scale
    loss = loss_of(batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
results["losses"] = torch.tensor(losses)
save_file({name: t.contiguous() for name, t in results.items()}, output)
