"""Writes train-reference.json: what PyTorch's AdamW and clipping and transformers' schedules compute.

Run with PyTorch and transformers installed:  python tests/parity/train-reference.py
"""

import json
import math
import pathlib

import torch
from transformers import get_scheduler

torch.manual_seed(0)


def adamw(weight_decay, steps=12):
    parameters = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
    start = [parameter.detach().flatten().tolist() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=1.0, betas=(0.9, 0.99), eps=1e-6, weight_decay=weight_decay)
    records = []
    for step in range(steps):
        lr = 0.01 * (step + 1) / steps
        gradients = [torch.randn_like(parameter) * 10 ** (step % 5 - 3) for parameter in parameters]
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        records.append(
            {
                "lr": lr,
                "gradients": [gradient.flatten().tolist() for gradient in gradients],
                "parameters": [parameter.detach().flatten().tolist() for parameter in parameters],
            }
        )
    return {"weight_decay": weight_decay, "start": start, "steps": records}


def clip(scale, max_norm):
    parameters = [torch.nn.Parameter(torch.zeros(3, 4)), torch.nn.Parameter(torch.zeros(6))]
    gradients = [torch.randn_like(parameter) * scale for parameter in parameters]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient.clone()
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return {
        "max_norm": max_norm,
        "gradients": [gradient.flatten().tolist() for gradient in gradients],
        "norm": norm.item(),
        "clipped": [parameter.grad.flatten().tolist() for parameter in parameters],
    }


def schedule(name, total, warmup_steps, warmup_ratio):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    warmup = warmup_steps if warmup_steps > 0 else math.ceil(total * warmup_ratio)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    rates = []
    for _ in range(total + 2):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return {
        "lr_scheduler_type": name,
        "total": total,
        "warmup_steps": warmup_steps,
        "warmup_ratio": warmup_ratio,
        "rates": rates,
    }


reference = {
    "adamw": [adamw(0.0), adamw(0.1)],
    "clip": [clip(1.0, 1.0), clip(1e-3, 1.0), clip(100.0, 0.5)],
    "schedules": [
        schedule(name, *shape)
        for name in ["linear", "cosine", "constant", "constant_with_warmup"]
        for shape in [(20, 0, 0.0), (23, 0, 0.1), (10, 4, 0.5), (3, 5, 0.0)]
    ],
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(reference, indent=1) + "\n")
