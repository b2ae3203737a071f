"""Loads adapters with PEFT and compares their logits with those that PEFT computed itself (variants-reference.py).

usage: judge-variants.py FOLDER   where FOLDER holds one adapter for each case, as variants.ts writes them
Prints each case's largest deviation, relative to the largest logit; exits 1 when one is above 1e-5.
"""
import pathlib
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

VARIANTS = pathlib.Path(__file__).parent / "variants"
failed = False
for adapter in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    case = adapter.name
    reference = load_file(VARIANTS / case.removesuffix("-converted") / "reference.safetensors")
    base = VARIANTS / ("base-tied" if case == "tied" else "base-untied")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(model, adapter).eval()
    with torch.no_grad():
        logits = model(input_ids=reference["input_ids"]).logits
    error = ((logits - reference["logits"]).abs().max() / reference["logits"].abs().max()).item()
    failed |= not error <= 1e-5
    print(f"{case}: {error:.2e}")
sys.exit(failed)
