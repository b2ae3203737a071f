"""Loads a GPTQ export with GPTQModel and compares its logits with those of the values that its codes stand for.

usage: judge-gptq.py EXPORT BASE [TEXT]

The values are unpacked here by the format's formula, w = (code - zero - 1) * scale (zero points are stored one too small
in version 1), and put into the base's transformers model; gate and up, which exports part, into one module where it has them
in one. Exits with 1 when any logit differs by more than 1 % of their span.
"""

import json
import os
import re
import sys

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

import torch
from gptqmodel import GPTQModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

export, base = sys.argv[1:3]
text = sys.argv[3] if len(sys.argv) > 3 else "Captain is a grey cat. He sleeps on the warm stones."
config = json.load(open(f"{export}/quantize_config.json"))
bits = config["bits"]
one = 1 if config["checkpoint_format"] == "gptq" else 0
mask = 2**bits - 1
shifts = torch.arange(0, 32, bits)

tensors = load_file(f"{export}/model.safetensors")
reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
weights = dict(reference.named_parameters())
for name, tensor in tensors.items():
    if name.endswith(".qweight"):
        path = name[: -len(".qweight")]
        qzeros, scales, groups = (tensors[f"{path}.{part}"] for part in ("qzeros", "scales", "g_idx"))
        codes = ((tensor.unsqueeze(1) >> shifts.view(1, -1, 1)) & mask).reshape(-1, tensor.shape[1])
        zeros = ((qzeros.unsqueeze(2) >> shifts.view(1, 1, -1)) & mask).reshape(qzeros.shape[0], -1)
        values = (codes - zeros[groups.long()] - one).float() * scales.float()[groups.long()]
        joined = re.sub(r"(gate|up)_proj$", "gate_up_proj", path)
        if joined != path and f"{joined}.weight" in weights:
            halves = weights[f"{joined}.weight"].data.chunk(2)
            halves[path.endswith(".up_proj")].copy_(values.T)
        else:
            weights[f"{path}.weight"].data = values.T.contiguous()
    elif name in weights:
        weights[name].data = tensor.float()

tokenizer = AutoTokenizer.from_pretrained(base)
ids = tokenizer(text, return_tensors="pt")
with torch.no_grad():
    expected = reference(**ids).logits[0]
    judged = GPTQModel.load(export, device="cpu", backend="torch").model(**ids).logits[0].float()
span = (expected.max() - expected.min()).item()
worst = (expected - judged).abs().max().item() / span
same = (expected.argmax(-1) == judged.argmax(-1)).float().mean().item()
print(f"largest difference {worst:.5f} of the span, same top token at {100 * same:.1f} % of {len(expected)} positions")
sys.exit(0 if worst < 0.01 else 1)
