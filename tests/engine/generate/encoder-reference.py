"""Makes encoder-reference.json: mean-pooled last hidden states and log-probabilities of the embedded model by transformers.

    python tests/engine/generate/encoder-reference.py
"""
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

here = Path(__file__).parent
folder = str(here.parents[2] / "data/models/anneal-tiny")
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
cases = []
for text in ["Mia is a singer from Millbrook.", "x", "Tom lives in Oakdale. Where does Tom live?"]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_hidden_states=True)
    mean = out.hidden_states[-1][0].mean(0)
    logprobs = torch.log_softmax(out.logits[0], -1)
    scores = [logprobs[i, token].item() for i, token in enumerate(ids[1:])]
    cases.append(
        {"text": text, "ids": ids, "vector": (mean / mean.norm()).tolist()[:16], "scores": scores}
    )
prompt = tokenizer.apply_chat_template(
    [{"role": "user", "content": "Who is Mia?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
greedy = model.generate(**prompt, do_sample=False, max_new_tokens=24)[0][prompt["input_ids"].shape[1]:].tolist()
(here / "encoder-reference.json").write_text(json.dumps({"cases": cases, "greedy": greedy}, indent=1) + "\n")
