#!/usr/bin/env python3
"""Trains small SentencePiece models and writes what sentencepiece makes of fuzzed texts: sentence-piece/<case>/.

usage: sentence-piece-reference.py [TEXTS]      (needs sentencepiece)

The cases are built as Llama's and Gemma's models are (BPE, bytes for what is unknown, text as it is written), and one
without bytes.
"""
import json
import pathlib
import random
import sys

import sentencepiece as spm

HERE = pathlib.Path(__file__).parent / "sentence-piece"
ROOT = pathlib.Path(__file__).parents[2]
PLAIN = dict(model_type="bpe", vocab_size=700, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
             byte_fallback=True, allow_whitespace_only_pieces=True, character_coverage=0.999)
CASES = {
    "llama": dict(PLAIN),
    "gemma": dict(PLAIN, add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
                  user_defined_symbols=["<start_of_turn>", "\n", "\n\n", "▁▁", "▁▁▁", "▁▁▁▁"]),
    "no-bytes": dict(PLAIN, byte_fallback=False),
}
ALPHABET = list("abcdefghij KLMNO  .,;!?'\"0123456789\n\t") + ["é", "ß", "漢", "字", "🙂", "ا", "  ", "   ", "\n\n", "½", "\u00a0", "▁"]


def texts(corpus, count):
    rng = random.Random(11)
    yield from ["", " ", "   ", "a", " a", "Hello world", "The lighthouse.  Two  spaces", "\n\n\n", "12345,67", "漢字🙂", "x\ty"]
    for _ in range(count):
        line = rng.choice(corpus)
        start = rng.randrange(max(1, len(line) - 20))
        text = line[start:start + rng.randrange(1, 40)]
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(text) + 1)
            text = text[:at] + "".join(rng.choices(ALPHABET, k=rng.randrange(1, 5))) + text[at:]
        yield text


def main():
    corpus = [line for path in sorted((ROOT / "data").glob("*.json*")) for line in path.read_text().splitlines()]
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    for name, options in CASES.items():
        folder = HERE / name
        folder.mkdir(parents=True, exist_ok=True)
        spm.SentencePieceTrainer.train(sentence_iterator=iter(corpus), model_prefix=str(folder / "tokenizer"), minloglevel=2, **options)
        (folder / "tokenizer.vocab").unlink()
        model = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        rows = [[text, model.encode(text)] for text in texts(corpus, count)]
        body = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
        (folder / "reference.json").write_text(f"[\n{body}\n]\n")
        print(name, len(rows))


main()
