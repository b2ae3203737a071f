#!/usr/bin/env python3
"""Makes a tiny random model of each family with a tokenizer of the kind that its releases have, and what transformers
computes for a few texts: OUT/<case>/{config.json, model.safetensors, tokenizer.json, …, reference.json}.

With --plain, models draw neither special tokens nor parts of characters, of which some runtimes tell nothing.

usage: make-families.py [--plain] OUT [SEED] [CASE...]          (needs torch and transformers)
"""
import json
import math
import pathlib
import sys

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM

ROOT = pathlib.Path(__file__).parents[2]
TEXTS = ["The Lighthouse library stands on the cliff,  doesn't it?\n\nIt's 12,345 steps; she'LL count them.",
         "Größe: naïve café — 漢字 🙂\tfoo_bar(x) == 1e-5;\r\n  return", "Marina opens the door at"]
SPECIAL = ["<unk>", "<s>", "</s>"]
COUNT = 24
TINY = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0)
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CAPITALS = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%(end)s|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%(end)s|"
            r"\p{N}%(digits)s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PATTERNS = {"llama3": WORDS % "{1,3}", "gpt-4": WORDS % "{1,3}", "qwen2": WORDS % "", "tekken": CAPITALS % dict(end="", digits=""),
            "gpt-4o": CAPITALS % dict(end=r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?", digits="{1,3}")}
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
YARN = dict(rope_type="yarn", factor=8.0, original_max_position_embeddings=16)
GEMMA = dict(head_dim=32, query_pre_attn_scalar=32, sliding_window=16)

# case: (model_type, kind of tokenizer, config)
CASES = {
    "llama": ("llama", "spm", dict(tie_word_embeddings=False)),
    "llama3": ("llama", "llama3", dict(tie_word_embeddings=True, rope_parameters=dict(rope_theta=500000.0, **LLAMA3))),
    "llama-biases": ("llama", "smollm", dict(attention_bias=True, mlp_bias=True, rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=10000.0))),
    "mistral-nemo": ("mistral", "tekken", dict(sliding_window=None, head_dim=32)),
    "mistral": ("mistral", "spm", dict(sliding_window=None, head_dim=32, rope_parameters=dict(rope_type="default", rope_theta=1000000.0))),
    "qwen2": ("qwen2", "qwen2", dict(tie_word_embeddings=True, use_sliding_window=False)),
    "qwen3": ("qwen3", "qwen2", dict(tie_word_embeddings=True, head_dim=32)),
    "gemma": ("gemma", "gemma", dict(head_dim=32)),
    "gemma2": ("gemma2", "gemma", dict(GEMMA, attn_logit_softcapping=50.0, final_logit_softcapping=30.0)),
    "gemma3": ("gemma3_text", "gemma", dict(GEMMA, num_hidden_layers=7, layer_types=["sliding_attention"] * 5 + ["full_attention", "sliding_attention"])),
    "gemma3-other-pattern": ("gemma3_text", "gemma", dict(GEMMA, num_hidden_layers=4, layer_types=["sliding_attention", "full_attention"] * 2, rope_parameters=dict(
        full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1000000.0), sliding_attention=dict(rope_type="default", rope_theta=20000.0)))),
    "phi3": ("phi3", "spm", dict(tie_word_embeddings=False, sliding_window=None)),
    "phi3-partial-rotary": ("phi3", "gpt-4o", dict(tie_word_embeddings=True, sliding_window=None, rope_parameters=dict(
        rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.75))),
    "olmo2": ("olmo2", "gpt-4", dict(tie_word_embeddings=False)),
    "olmo2-tied": ("olmo2", "gpt-4", dict(tie_word_embeddings=True)),
    "mixtral": ("mixtral", "spm", dict(num_local_experts=4, num_experts_per_tok=2, tie_word_embeddings=False, sliding_window=None)),
    "qwen3-moe": ("qwen3_moe", "qwen2", dict(head_dim=32, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64,
                                               norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[])),
    "llama-yarn": ("llama", "spm", dict(tie_word_embeddings=False, head_dim=32, rope_parameters=dict(YARN, rope_theta=10000.0))),
    "qwen3-yarn-attention": ("qwen3", "qwen2", dict(tie_word_embeddings=True, head_dim=32, rope_parameters=dict(
        YARN, rope_theta=1000000.0, attention_factor=1.4, beta_fast=8.0, beta_slow=0.5))),
    "phi3-longrope": ("phi3", "gpt-4o", dict(max_position_embeddings=512, tie_word_embeddings=True, sliding_window=None, original_max_position_embeddings=256,
        rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75, original_max_position_embeddings=256,
                             short_factor=[1.0, 1.1, 1.3, 1.7, 2.0, 2.5], long_factor=[3.0, 4.0, 5.0, 6.0, 7.0, 8.0]))),
    "glm": ("glm", "gpt-4", dict(head_dim=16, attention_bias=True, tie_word_embeddings=False)),
    "glm4": ("glm4", "gpt-4", dict(head_dim=32, attention_bias=True, tie_word_embeddings=False)),
}


def corpus():
    return [line for path in sorted((ROOT / "data").glob("*.json*")) for line in path.read_text().splitlines()]


def byte_level(kind):
    split = lambda regex: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind in ("llama3", "tekken")))
    if kind == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    else:
        tokenizer.pre_tokenizer = split(PATTERNS[kind])
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIAL, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if kind == "llama3":
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tokenizer


def sentence_piece(kind):
    """Pieces by rank, and every pair that makes one as a merge: what converting a SentencePiece model gives."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=700, special_tokens=[], show_progress=False))
    pieces = sorted(trained.get_vocab(), key=trained.get_vocab().get)
    made = [p for p in pieces if len(p) > 1]
    names = SPECIAL + [f"<0x{b:02X}>" for b in range(256)] + made + [p for p in pieces if len(p) == 1]
    vocab = {name: i for i, name in enumerate(names)}
    merges = [(p[:at], p[at:]) for p in made for at in range(1, len(p)) if p[:at] in vocab and p[at:] in vocab]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    prefix = kind == "spm"
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()] + ([decoders.Strip(" ", 1, 0)] if prefix else []))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tokenizer


def randomize(model, generator):
    gemma = "gemma" in model.config.model_type
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.endswith("bias"):
            p.data = 0.2 * noise
        else:
            p.data = noise * (0.7 / math.sqrt(p.shape[-1])) if p.dim() > 1 else 0.1 * noise + (0 if gemma else 1)
        p.data = p.data.half().float()  # what a file at 16 bits can hold


def silence(model, tokenizer):
    """Zeroes the output rows of tokens that are special, no whole characters, or beyond the vocabulary: no logit is largest at 0."""
    rows = model.get_output_embeddings().weight.data
    names = [tokenizer.decode([id], skip_special_tokens=False) for id in range(tokenizer.get_vocab_size())]
    plain = [name not in SPECIAL and name != "" and "\ufffd" not in name for name in names]
    for id in range(rows.shape[0]):
        if id >= len(plain) or not plain[id]:
            rows[id] = 0


def one(name, out, seed, plain=False):
    model_type, kind, extra = CASES[name]
    tokenizer = sentence_piece(kind) if kind in ("spm", "gemma") else byte_level(kind)
    folder = out / name
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>", unk_token="<unk>", clean_up_tokenization_spaces=False,
        chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}")))
    # Rows beyond the vocabulary, as many releases have.
    config = AutoConfig.for_model(model_type, **{**TINY, **extra, "vocab_size": tokenizer.get_vocab_size() + 5})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    randomize(model, torch.Generator().manual_seed(seed))
    model.tie_weights()
    if plain:
        silence(model, tokenizer)
    model.save_pretrained(folder)
    texts = []
    with torch.no_grad():
        for text in TEXTS:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            logits = model(torch.tensor([ids])).logits[0]
            greedy = model.generate(torch.tensor([ids]), max_new_tokens=COUNT, do_sample=False, eos_token_id=None, pad_token_id=0)[0, len(ids):]
            texts.append(dict(text=text, ids=ids, withSpecial=tokenizer.encode(text).ids, greedy=greedy.tolist(),
                              logProbabilities=[[round(v, 5) for v in row] for row in torch.log_softmax(logits, -1).tolist()]))
    (folder / "reference.json").write_text(json.dumps(dict(modelType=model_type, texts=texts)))


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if word != "--plain"]
    out, seed, wanted = pathlib.Path(given[0]), int((given[1:] or ["0"])[0]), given[2:]
    torch.set_num_threads(1)
    for name in wanted or CASES:
        one(name, out, seed, "--plain" in sys.argv)
