#!/usr/bin/env python3
"""Loads an adapter that Anneal wrote with PEFT and prints the logits' largest deviation from the reference.

usage: judge-adapter.py BASE_FOLDER ADAPTER_FOLDER REFERENCE_FOLDER TENSOR_NAME
Prints one JSON object: {"error": largest |difference| / range of the reference}.
"""
import json
import sys

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM

base_folder, adapter_folder, reference_folder, tensor = sys.argv[1:5]
with safe_open(f"{reference_folder}/reference.safetensors", "pt") as reference:
    ids, mask = reference.get_tensor("batch.00.input_ids"), reference.get_tensor("batch.00.attention_mask")
    expected = reference.get_tensor(tensor)
base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32, attn_implementation="eager")
model = PeftModel.from_pretrained(base, adapter_folder).eval()
with torch.no_grad():
    logits = model(input_ids=ids, attention_mask=mask).logits
kept = mask.bool()
span = (expected[kept].max() - expected[kept].min()).item()
print(json.dumps({"error": (logits[kept] - expected[kept]).abs().max().item() / span}))
