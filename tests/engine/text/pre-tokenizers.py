#!/usr/bin/env python3
"""Writes pre-tokenizers.json: what the tokenizers crate makes of texts. usage: pre-tokenizers.py SMOLLM2_FOLDER"""
import json, os, sys
from tokenizers import Tokenizer, models

TEXTS = ["1 \u00bd cups, x\u00b2 = \u0664\u0662", "\u2167  \u2460 na\u00efve caf\u00e9_1", "\ufeffa\n\ufeff b\u0085c", "a--b ... (c)!\u3002\u300c"]
CUTS = {
    "Digits, one by one": {"type": "Digits", "individual_digits": True},
    "Digits": {"type": "Digits", "individual_digits": False},
    "Whitespace": {"type": "Whitespace"},
    "Punctuation": {"type": "Punctuation", "behavior": "Isolated"},
    "Punctuation together": {"type": "Punctuation", "behavior": "Contiguous"},
    "ByteLevel": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "Digits and ByteLevel": {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
}
SMOLLM2 = ["1 \u00bd cups", "Total:  \u00bd", "e = mc \u00b2", "\u0664\u0662 \u0661", "\n \u2167", "a\n\ufeff b"]

empty = json.loads(Tokenizer(models.WordLevel({"[none]": 0}, unk_token="[none]")).to_str())
cuts = []
for name, pre_tokenizer in CUTS.items():
    tokenizer = Tokenizer.from_str(json.dumps({**empty, "pre_tokenizer": pre_tokenizer}))
    for text in TEXTS:
        pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        cuts.append(dict(name=name, pre_tokenizer=pre_tokenizer, text=text, pieces=pieces))
smollm2 = Tokenizer.from_file(os.path.join(sys.argv[1], "tokenizer.json"))
ids = [dict(text=text, ids=smollm2.encode(text, add_special_tokens=False).ids) for text in SMOLLM2]
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "pre-tokenizers.json"), "w") as out:
    json.dump(dict(cuts=cuts, smollm2=ids), out, indent=1)
    out.write("\n")
