"""Adds case shift to variants/: LongLoRA's shifted attention (arXiv:2309.12307) in torch, as its authors compute it.

Queries, keys and values of the second half of the heads are rolled back by half a group, the sequence is cut into four
groups that attend causally inside themselves, and the result is rolled forth again. Writes reference.safetensors with
input_ids, labels, the loss, and the gradient of one layer's query projection, over variants/base-untied.

Run after variants-reference.py:  python tests/parity/shift-reference.py
"""

import math
import pathlib

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama

OUT = pathlib.Path(__file__).parent / "variants"


def shifted(module, query, key, value, attention_mask, scaling, **_):
    batch, heads, length, width = query.shape
    repeats = heads // key.shape[1]
    group, half = length // 4, heads // 2

    def cut(states):
        states = states.transpose(1, 2)
        rolled = states[:, :, half:].roll(-(group // 2), dims=1)
        states = torch.cat((states[:, :, :half], rolled), dim=2)
        return states.reshape(batch * 4, group, heads, width).transpose(1, 2)

    query, key, value = cut(query), cut(key.repeat_interleave(repeats, 1)), cut(value.repeat_interleave(repeats, 1))
    scores = query @ key.transpose(2, 3) / math.sqrt(width)
    scores = scores.masked_fill(torch.ones(group, group).triu(1).bool(), float("-inf"))
    output = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, heads, width)
    return torch.cat((output[:, :, :half], output[:, :, half:].roll(group // 2, dims=1)), dim=2), None


modeling_llama.eager_attention_forward = shifted
model = AutoModelForCausalLM.from_pretrained(OUT / "base-untied", dtype=torch.float32, attn_implementation="eager")
ids = torch.randint(3, 48, (2, 16), generator=torch.Generator().manual_seed(6))
labels = ids.clone()
labels[:, :3] = -100
loss = model(input_ids=ids, labels=labels).loss
loss.backward()
name = "model.layers.0.self_attn.q_proj.weight"
(OUT / "shift").mkdir(exist_ok=True)
save_file(
    {"input_ids": ids, "labels": labels, "loss": loss.detach(), f"grad.{name}": dict(model.named_parameters())[name].grad},
    OUT / "shift" / "reference.safetensors",
)
print(loss.item())
