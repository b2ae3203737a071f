#!/usr/bin/env python3
"""Writes one small JSON file per case: what PyTorch computes for tiny models whose weights anyone can regenerate.

usage: make.py [CASE...]            (needs torch, transformers, peft, safetensors)

A weight is a sequence of numbers from a linear congruential generator seeded by the tensor's name, so the files hold
only configs, shapes and results. Where transformers has the architecture, it is the reference, loaded from a folder as
it would lie on disk; the architectures that came as code beside their weights (Baichuan, ChatGLM) are written down in
remote_models.py from their publications. LoRA is applied as W + 2·B·A, and its gradients follow from those of W.
"""

import json
import pathlib
import sys
import tempfile

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import remote_models

HERE = pathlib.Path(__file__).parent
RANK, SCALE, LENGTH = 2, 2.0, 14
TINY = dict(vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-6, pad_token_id=0,
            torch_dtype="float32")


def numbers(name, count):
    """Uniform in [-1, 1): x ← 1664525·x + 1013904223 mod 2³², seeded with the name's FNV-1a hash."""
    state, out = 2166136261, []
    for byte in name.encode():
        state = (state ^ byte) * 16777619 % 2**32
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        out.append(state / 2**31 - 1)
    return torch.tensor(out, dtype=torch.float32)


def weight(name, shape):
    """Matrices are scaled by their width, norms lie around 1 (around 0 for Gemma: 'zero norms' of the case)."""
    values = numbers(name, torch.Size(shape).numel()).reshape(shape)
    if len(shape) == 2:
        return values * (1.5 / shape[1] ** 0.5)
    return values * 0.3 if name.endswith(".bias") else 1 + 0.3 * values


def attention(prefix, config, fused=None, bias=(), qk_norms=()):
    """Shapes of one layer's attention."""
    heads, kv, hidden = config["num_attention_heads"], config["num_key_value_heads"], config["hidden_size"]
    head = config.get("head_dim") or hidden // heads
    rows = {"q_proj": heads * head, "k_proj": kv * head, "v_proj": kv * head}
    if fused:
        rows = {fused: sum(rows.values())}
    shapes = {f"{prefix}.{n}.weight": [r, hidden] for n, r in rows.items()}
    shapes[f"{prefix}.o_proj.weight"] = [hidden, heads * head]
    for n in bias:
        shapes[f"{prefix}.{n}.bias"] = [rows.get(n, hidden)]
    for n in qk_norms:
        shapes[f"{prefix}.{n}.weight"] = [head]
    return shapes


def mlp(prefix, hidden, width, fused=None, down="down_proj", bias=False):
    rows = {fused: 2 * width} if fused else {"gate_proj": width, "up_proj": width}
    shapes = {f"{prefix}.{n}.weight": [r, hidden] for n, r in rows.items()}
    shapes[f"{prefix}.{down}.weight"] = [hidden, width]
    if bias:
        shapes.update({f"{prefix}.{n}.bias": [r] for n, r in {**rows, down: hidden}.items()})
    return shapes


def decoder(config, norms=("input_layernorm", "post_attention_layernorm"), tied=False, mlp_of=None, fused_mlp=None,
            mlp_bias=False, **attn):
    """Shapes of a model with Llama's names."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes = {"model.embed_tokens.weight": [vocab, hidden], "model.norm.weight": [hidden]}
    if not tied:
        shapes["lm_head.weight"] = [vocab, hidden]
    for layer in range(config["num_hidden_layers"]):
        path = f"model.layers.{layer}"
        shapes.update(attention(f"{path}.self_attn", config, **attn))
        shapes.update({f"{path}.{n}.weight": [hidden] for n in norms})
        usual = lambda _, p: mlp(f"{p}.mlp", hidden, config["intermediate_size"], fused_mlp, bias=mlp_bias)
        shapes.update((mlp_of or usual)(layer, path))
    return shapes


def experts(block, names, count, hidden, width):
    gate, up, down = names
    shapes = {f"{block}.gate.weight": [count, hidden]}
    for e in range(count):
        shapes.update({f"{block}.experts.{e}.{gate}.weight": [width, hidden], f"{block}.experts.{e}.{up}.weight": [width, hidden],
                       f"{block}.experts.{e}.{down}.weight": [hidden, width]})
    return shapes


def cases():
    """name → config.json, shapes on disk, and how the reference is built."""
    out = {}

    def case(name, config, shapes, **how):
        out[name] = dict(config=config, shapes=shapes, **how)

    sandwich = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    c = dict(TINY, model_type="gemma", head_dim=16, hidden_act="gelu", rope_theta=10000.0)
    case("gemma", c, decoder(c, tied=True), zero_norms=True)
    c = dict(TINY, model_type="gemma2", head_dim=16, hidden_act="gelu_pytorch_tanh", hidden_activation="gelu_pytorch_tanh",
             rope_theta=10000.0, query_pre_attn_scalar=24, sliding_window=4, attn_logit_softcapping=2.0, final_logit_softcapping=1.5)
    case("gemma2-old-config", c, decoder(c, sandwich, tied=True), zero_norms=True)
    c = dict(TINY, model_type="gemma3_text", num_hidden_layers=3, head_dim=16, hidden_activation="gelu_pytorch_tanh",
             rope_theta=1000000.0, rope_local_base_freq=10000.0, rope_scaling=dict(factor=8.0, rope_type="linear"),
             query_pre_attn_scalar=24, sliding_window=4, sliding_window_pattern=2)
    case("gemma3-old-config", c, decoder(c, sandwich, tied=True, qk_norms=("q_norm", "k_norm")), zero_norms=True)
    c = dict(TINY, model_type="glm", head_dim=16, attention_bias=True, partial_rotary_factor=0.5, rope_theta=10000.0, rms_norm_eps=1.5625e-7)
    case("glm", c, decoder(c, fused_mlp="gate_up_proj", bias=("q_proj", "k_proj", "v_proj")))
    c = dict(TINY, model_type="llama", rope_theta=10000.0, rope_scaling=dict(type="linear", factor=4.0), attention_bias=True, mlp_bias=True)
    case("llama-linear-rope-and-biases", c, decoder(c, bias=("q_proj", "k_proj", "v_proj", "o_proj"), mlp_bias=True))
    yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=8)
    c = dict(TINY, model_type="llama", rope_theta=10000.0, head_dim=16, rope_scaling=dict(
        type="yarn", factor=4.0, original_max_position_embeddings=8))
    case("llama-yarn", c, decoder(c))
    c = dict(TINY, model_type="qwen2", rope_theta=1000.0, tie_word_embeddings=True, rope_scaling=dict(
        yarn, mscale=0.7, mscale_all_dim=1.3, truncate=False, beta_fast=4.0, beta_slow=0.5))
    case("qwen2-yarn-mscale", c, decoder(c, tied=True, bias=("q_proj", "k_proj", "v_proj")))
    c = dict(TINY, model_type="qwen3", head_dim=32, max_position_embeddings=32, rope_parameters=dict(
        yarn, rope_theta=100.0, attention_factor=1.7, beta_fast=2.0))
    case("qwen3-yarn-factor", c, decoder(c, qk_norms=("q_norm", "k_norm")))
    c = dict(TINY, model_type="qwen3", head_dim=16, rope_theta=10000.0, rope_scaling=dict(type="dynamic", factor=4.0))
    case("qwen3-dynamic", c, decoder(c, qk_norms=("q_norm", "k_norm")))
    c = dict(TINY, model_type="phi3", head_dim=16, rope_theta=10000.0, partial_rotary_factor=0.75, max_position_embeddings=64,
             original_max_position_embeddings=32, num_attention_heads=2, sliding_window=None,
             rope_scaling=dict(type="longrope", short_factor=[1.0, 1.1, 1.3, 1.7, 2.0, 2.5], long_factor=[3.0, 4.0, 5.0, 6.0, 7.0, 8.0]))
    case("phi3-longrope", c, decoder(c, fused="qkv_proj", fused_mlp="gate_up_proj"))
    c = dict(TINY, model_type="Yi", rope_theta=5000000.0)
    case("yi-first-release", c, decoder(c, norms=("ln1", "ln2")), judge_type="llama",
         renamed={".ln1.": ".input_layernorm.", ".ln2.": ".post_attention_layernorm."})
    c = dict(TINY, model_type="qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1, rope_theta=1000000.0, tie_word_embeddings=True)
    case("qwen2-sliding-from-layer-1", c, decoder(c, tied=True, bias=("q_proj", "k_proj", "v_proj")))
    c = dict(TINY, model_type="phi3", sliding_window=5, partial_rotary_factor=0.5, rope_theta=10000.0, rope_scaling=None)
    case("phi3-partial-rotary-sliding", c, decoder(c, fused="qkv_proj", fused_mlp="gate_up_proj"))
    c = dict(TINY, model_type="mistral", sliding_window=3, rope_theta=10000.0, head_dim=None)
    case("mistral-old-config", c, decoder(c))
    c = dict(TINY, model_type="mixtral", num_local_experts=5, num_experts_per_tok=2, sliding_window=6, rope_theta=1000000.0)
    case("mixtral-experts-adapted", c, decoder(c, mlp_of=lambda _, p: experts(
        f"{p}.block_sparse_moe", ("w1", "w3", "w2"), 5, 32, 40)), experts=("w1", "w3", "w2"))
    c = dict(TINY, model_type="qwen3_moe", head_dim=16, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=24,
             norm_topk_prob=False, decoder_sparse_step=1, mlp_only_layers=[0], rope_theta=1000000.0)
    case("qwen3-moe-one-dense-layer", c, decoder(c, qk_norms=("q_norm", "k_norm"), mlp_of=lambda i, p: mlp(f"{p}.mlp", 32, 40)
         if i == 0 else experts(f"{p}.mlp", ("gate_proj", "up_proj", "down_proj"), 6, 32, 24)),
         experts=("gate_proj", "up_proj", "down_proj"))
    c = dict(TINY, model_type="baichuan", architectures=["BaichuanForCausalLM"], hidden_act="silu", num_key_value_heads=4, model_max_length=64)
    shapes = decoder(c, fused="W_pack")
    del c["num_key_value_heads"]
    case("baichuan2", c, shapes, remote=remote_models.Baichuan)
    case("baichuan1", dict(c, architectures=["BaiChuanForCausalLM"]), shapes, remote=remote_models.PlainHeadBaichuan)
    c = dict(model_type="chatglm", padded_vocab_size=48, hidden_size=32, ffn_hidden_size=40, num_layers=2, num_attention_heads=4,
             multi_query_attention=True, multi_query_group_num=2, kv_channels=16, seq_length=64, layernorm_epsilon=1e-5, rmsnorm=True,
             post_layer_norm=True, add_bias_linear=False, add_qkv_bias=True, apply_query_key_layer_scaling=True,
             apply_residual_connection_post_layernorm=False, attention_dropout=0.0, hidden_dropout=0.0, original_rope=True,
             rope_ratio=50, torch_dtype="float32")
    shapes = {"transformer.embedding.word_embeddings.weight": [48, 32], "transformer.encoder.final_layernorm.weight": [32],
              "transformer.output_layer.weight": [48, 32], "transformer.rotary_pos_emb.inv_freq": [4]}
    for i in range(2):
        p = f"transformer.encoder.layers.{i}"
        shapes.update({f"{p}.input_layernorm.weight": [32], f"{p}.post_attention_layernorm.weight": [32],
                       f"{p}.self_attention.query_key_value.weight": [128, 32], f"{p}.self_attention.query_key_value.bias": [128],
                       f"{p}.self_attention.dense.weight": [32, 64], f"{p}.mlp.dense_h_to_4h.weight": [80, 32],
                       f"{p}.mlp.dense_4h_to_h.weight": [32, 40]})
    case("chatglm", c, shapes, remote=remote_models.ChatGlm)
    return out


def adapted_modules(model, case):
    """Paths that PEFT's all-linear finds, as they are called on disk; with experts, those too."""
    if "remote" in case:
        return [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and not n.endswith(model.head_name)], []
    found = _maybe_include_all_linear_layers(LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"), model).target_modules
    paths = [n for n, _ in model.named_modules() if n in found or any(n.endswith("." + f) for f in found)]
    paths = [n for n in paths if isinstance(model.get_submodule(n), torch.nn.Linear)]
    inside = [s[: -len(".weight")] for s in case["shapes"] if ".experts." in s]
    return paths, inside


def load(case, tensors):
    if "remote" in case:
        model = case["remote"](case["config"])
        model.load_state_dict(tensors)
        return model
    renamed = tensors
    for old, new in case.get("renamed", {}).items():
        renamed = {k.replace(old, new): v for k, v in renamed.items()}
    with tempfile.TemporaryDirectory() as folder:
        config = dict(case["config"], model_type=case.get("judge_type", case["config"]["model_type"]))
        pathlib.Path(folder, "config.json").write_text(json.dumps(config))
        save_file(renamed, f"{folder}/model.safetensors", metadata={"format": "pt"})
        model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not info["unexpected_keys"] and not info["mismatched_keys"], info
    assert all("lm_head" in k for k in info["missing_keys"]), info
    return model


def weight_gradient(model, case, path):
    """The gradient of a linear module's weight; experts are slices of stacked parameters in memory."""
    if ".experts." not in path:
        return model.get_submodule(path).weight.grad
    block, _, rest = path.partition(".experts.")
    expert, name = rest.split(".")
    stacked = model.get_submodule(block.replace("block_sparse_moe", "mlp") + ".experts")
    gate, up, down = case["experts"]
    if name == down:
        return stacked.down_proj.grad[int(expert)]
    first, second = stacked.gate_up_proj.grad[int(expert)].chunk(2)
    return first if name == gate else second


def run(name, case):
    base = {n: weight(n, s) for n, s in case["shapes"].items()}
    if case.get("zero_norms"):
        base = {n: w - 1 if w.dim() == 1 else w for n, w in base.items()}
    ids = ((numbers("tokens", 2 * LENGTH) + 1) * 24).long().clamp(max=47).reshape(2, LENGTH)
    mask = torch.ones_like(ids)
    mask[1, LENGTH - 4:] = 0
    labels = torch.where((mask == 1) & (torch.arange(LENGTH) >= 3), ids, -100)
    model = load(case, base).eval()
    rounded = lambda t: [float(f"{v:.7g}") for v in t.flatten().tolist()]
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
    linear, expert_paths = adapted_modules(model, case)
    factors, merged = {}, dict(base)
    for path in linear + expert_paths:
        rows, columns = base[path + ".weight"].shape
        factors[path] = (0.3 * numbers(path + ".lora_A", RANK * columns).reshape(RANK, columns),
                         0.3 * numbers(path + ".lora_B", rows * RANK).reshape(rows, RANK))
        merged[path + ".weight"] = base[path + ".weight"] + SCALE * factors[path][1] @ factors[path][0]
    model = load(case, merged).train()
    output = model(input_ids=ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    gradients = {}
    for path, (a, b) in factors.items():
        dw = weight_gradient(model, case, path)
        for letter, grad in (("A", SCALE * b.T @ dw), ("B", SCALE * dw @ a.T)):
            gradients[f"{path}.lora_{letter}"] = rounded(torch.stack([grad.norm(), grad.sum()]))
    result = dict(
        config=case["config"], shapes=case["shapes"], zeroNorms=bool(case.get("zero_norms")), inputIds=ids.tolist(),
        lengths=mask.sum(1).tolist(), linear=linear, experts=expert_paths, rank=RANK, scale=SCALE,
        logits=rounded(logits[mask.bool()]), adaptedLogits=rounded(output.logits.detach()[mask.bool()]),
        loss=output.loss.item(), gradients=gradients)
    (HERE / f"{name}.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")
    print(name, result["loss"], len(linear), len(expert_paths))


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for name, case in cases().items():
        if not wanted or name in wanted:
            run(name, case)
