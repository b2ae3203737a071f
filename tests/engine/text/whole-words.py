#!/usr/bin/env python3
"""Writes whole-words.json: what the tokenizers crate makes of texts with added tokens that are single words.

usage: whole-words.py [TEXTS]      (needs tokenizers)
"""
import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

PARTS = ["foo", "foo bar", "foo", " ", "  ", "é", "ab", "<s>", "x", "1", "_", "-", ".", "\n", "字", "½", "'", "ba", "o", "²", "\u0301"]

tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.add_tokens([AddedToken("foo", single_word=True, normalized=False), AddedToken("foo bar", single_word=True, normalized=False),
                      AddedToken("é", single_word=True, normalized=True),
                      AddedToken("ab", single_word=True, lstrip=True, rstrip=True, normalized=False)])
tokenizer.add_special_tokens([AddedToken("<s>", normalized=False)])
rng = random.Random(5)
count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
texts = ["".join(rng.choices(PARTS, k=rng.randrange(1, 9))) for _ in range(count)]
rows = [[text, tokenizer.encode(text, add_special_tokens=False).ids] for text in texts]
out = pathlib.Path(__file__).with_suffix(".json")
body = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
out.write_text(f'{{"tokenizer":{json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False)},\n"texts":[\n{body}\n]}}\n')
