#!/usr/bin/env python3
"""Compares PEFT's reading of an adapter on experts with the model into which Anneal merged it.

usage: judge-experts.py BASE_FOLDER ADAPTER_FOLDER MERGED_FOLDER
Prints one JSON object: {"error": largest |difference| of logits / their range, "effect": the same against the base}.
"""
import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

base_folder, adapter_folder, merged_folder = sys.argv[1:4]
load = lambda folder: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
ids = torch.arange(3, 27).repeat(2, 1) * torch.tensor([[1], [7]]) % 300
with torch.no_grad():
    merged, base = load(merged_folder)(input_ids=ids).logits, load(base_folder)(input_ids=ids).logits
    adapted = PeftModel.from_pretrained(load(base_folder), adapter_folder).eval()(input_ids=ids).logits
span = (merged.max() - merged.min()).item()
far = lambda left, right: (left - right).abs().max().item() / span
print(json.dumps({"error": far(adapted, merged), "effect": far(base, merged)}))
