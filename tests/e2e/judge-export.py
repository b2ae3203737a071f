#!/usr/bin/env python3
"""Loads an exported folder with transformers and answers one question greedily.

usage: judge-export.py FOLDER QUESTION   → one JSON object: {"answer": …, "dtype": …}
"""
import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, question = sys.argv[1:3]
tokenizer = AutoTokenizer.from_pretrained(folder)
stored = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
prompt = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True)
ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
output = model.generate(**ids, max_new_tokens=48, do_sample=False)
answer = tokenizer.decode(output[0, ids["input_ids"].shape[1]:], skip_special_tokens=True)
print(json.dumps({"answer": answer.strip(), "dtype": str(stored)}))
