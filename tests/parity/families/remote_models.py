"""Compact PyTorch versions of models whose code came with their weights, from their publications.

Baichuan: Baichuan 2, arXiv:2309.10305 (7B: rope, one packed projection, a head of unit rows). ChatGLM2/3 and GLM-4 in
their first layout: arXiv:2406.12793 (half of each head rotates in interleaved pairs, grouped keys, fused projections).
Only what decides the numbers: no caches, no dropout.
"""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F


class Norm(nn.Module):
    def __init__(self, width, epsilon):
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(width)), epsilon

    def forward(self, x):
        return x / (x.square().mean(-1, keepdim=True) + self.epsilon).sqrt() * self.weight


def attend(q, k, v):
    """Causal attention of [batch, seq, heads, width]; keys are shared by groups of query heads."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for t in (k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    future = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    context = scores.masked_fill(future, float("-inf")).softmax(-1) @ v
    return context.transpose(1, 2).flatten(2)


def angles(length, width, base):
    return torch.outer(torch.arange(length).float(), base ** (-torch.arange(0, width, 2).float() / width))[None, :, None]


def rotate_halves(x):
    angle = angles(x.shape[1], x.shape[-1], 10000.0)
    first, second = x.chunk(2, -1)
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)


def rotate_first_half_in_pairs(x, base):
    turned, kept = x.chunk(2, -1)
    angle = angles(x.shape[1], turned.shape[-1], base)
    even, odd = turned[..., 0::2], turned[..., 1::2]
    pairs = torch.stack([even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()], -1)
    return torch.cat([pairs.flatten(-2), kept], -1)


class Language(nn.Module):
    """Loss over shifted labels, as transformers computes it."""

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.logits(input_ids)
        loss = None if labels is None else F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(logits=logits, loss=loss)


class BaichuanLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        hidden, self.heads = c["hidden_size"], c["num_attention_heads"]
        self.input_layernorm, self.post_attention_layernorm = (Norm(hidden, c["rms_norm_eps"]) for _ in range(2))
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.self_attn = nn.ModuleDict(dict(W_pack=linear(hidden, 3 * hidden), o_proj=linear(hidden, hidden)))
        self.mlp = nn.ModuleDict(dict(gate_proj=linear(hidden, c["intermediate_size"]), up_proj=linear(hidden, c["intermediate_size"]),
                                      down_proj=linear(c["intermediate_size"], hidden)))

    def forward(self, x):
        packed = self.self_attn["W_pack"](self.input_layernorm(x))
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in packed.chunk(3, -1))
        x = x + self.self_attn["o_proj"](attend(rotate_halves(q), rotate_halves(k), v))
        y = self.post_attention_layernorm(x)
        return x + self.mlp["down_proj"](F.silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y))


class Baichuan(Language):
    head_name = "lm_head"

    def __init__(self, c):
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.model.layers = nn.ModuleList(BaichuanLayer(c) for _ in range(c["num_hidden_layers"]))
        self.model.norm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.lm_head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)

    def head(self):
        return F.normalize(self.lm_head.weight)

    def logits(self, ids):
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x)
        return self.model.norm(x) @ self.head().T


class PlainHeadBaichuan(Baichuan):
    def head(self):
        return self.lm_head.weight


class ChatGlmLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        hidden, inner, self.heads = c["hidden_size"], c["ffn_hidden_size"], c["num_attention_heads"]
        self.groups, self.width = c["multi_query_group_num"], c["kv_channels"]
        self.base = 10000.0 * c["rope_ratio"]
        self.input_layernorm, self.post_attention_layernorm = (Norm(hidden, c["layernorm_epsilon"]) for _ in range(2))
        rows = (self.heads + 2 * self.groups) * self.width
        self.self_attention = nn.ModuleDict(dict(query_key_value=nn.Linear(hidden, rows, bias=c["add_qkv_bias"]),
                                                 dense=nn.Linear(self.heads * self.width, hidden, bias=False)))
        self.mlp = nn.ModuleDict(dict(dense_h_to_4h=nn.Linear(hidden, 2 * inner, bias=False), dense_4h_to_h=nn.Linear(inner, hidden, bias=False)))

    def forward(self, x):
        joined = self.self_attention["query_key_value"](self.input_layernorm(x)).unflatten(-1, (-1, self.width))
        q, k, v = joined.split([self.heads, self.groups, self.groups], dim=2)
        turned = (rotate_first_half_in_pairs(t, self.base) for t in (q, k))
        x = x + self.self_attention["dense"](attend(*turned, v))
        gate, up = self.mlp["dense_h_to_4h"](self.post_attention_layernorm(x)).chunk(2, -1)
        return x + self.mlp["dense_4h_to_h"](F.silu(gate) * up)


class ChatGlm(Language):
    head_name = "output_layer"

    def __init__(self, c):
        super().__init__()
        t = self.transformer = nn.Module()
        t.embedding, t.encoder, t.rotary_pos_emb = nn.Module(), nn.Module(), nn.Module()
        t.embedding.word_embeddings = nn.Embedding(c["padded_vocab_size"], c["hidden_size"])
        t.encoder.layers = nn.ModuleList(ChatGlmLayer(c) for _ in range(c["num_layers"]))
        t.encoder.final_layernorm = Norm(c["hidden_size"], c["layernorm_epsilon"])
        t.output_layer = nn.Linear(c["hidden_size"], c["padded_vocab_size"], bias=False)
        t.rotary_pos_emb.register_buffer("inv_freq", torch.zeros(c["kv_channels"] // 4))  # stored, not used

    def logits(self, ids):
        x = self.transformer.embedding.word_embeddings(ids)
        for layer in self.transformer.encoder.layers:
            x = layer(x)
        return self.transformer.output_layer(self.transformer.encoder.final_layernorm(x))
