"""Writes variants/: what PEFT makes of LoRA's variants on two tiny random llamas, in float32.

base-untied/ and base-tied/ are model folders. Each case has a PEFT folder with random values, and reference.safetensors
with input_ids, labels, logits, loss, and the gradient of the mean loss by every trained tensor, under PEFT's names. Case
pissa also has the adapter that PEFT's exact PiSSA begins with (pissa-start), and PEFT's conversion of the trained one to
the original base (pissa-converted); its logits are those over the base without the principal part.

Run with PyTorch, transformers and PEFT installed:  python tests/parity/variants-reference.py
"""

import json
import pathlib
import shutil

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

OUT = pathlib.Path(__file__).parent / "variants"
SIZE = dict(vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "patterns": dict(r=4, lora_alpha=6, target_modules=ALL, rank_pattern={"q_proj": 2, "layers.1.mlp.up_proj": 6},
                     alpha_pattern={"mlp.*": 3}),
    "layers": dict(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], layers_to_transform=[1], layers_pattern="layers"),
    "expression": dict(r=2, lora_alpha=4, target_modules=r"model\.layers\.\d+\.(self_attn\.(q|v)_proj|mlp\.down_proj)"),
    "whole": dict(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head", "norm", "embed_tokens"]),
    "tied": dict(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens"],
                 ensure_weight_tying=True),
    "dora-rslora": dict(r=4, lora_alpha=4, target_modules=ALL, use_dora=True, use_rslora=True),
    "pissa": dict(r=3, lora_alpha=5, target_modules=["q_proj", "up_proj", "down_proj"], init_lora_weights="pissa"),
}


def base(tied):
    torch.manual_seed(4)
    config = LlamaConfig(**SIZE, tie_word_embeddings=tied, attn_implementation="eager")
    model = AutoModelForCausalLM.from_config(config)
    for name, p in model.named_parameters():
        p.data = 1 + 0.1 * torch.randn_like(p) if p.dim() == 1 else torch.randn_like(p) * 0.3
    model.tie_weights()
    return model.eval()


def save(model, folder, **options):
    model.save_pretrained(folder, **options)
    for name in ("README.md", "generation_config.json"):
        (folder / name).unlink(missing_ok=True)


shutil.rmtree(OUT, ignore_errors=True)
for tied in (False, True):
    save(base(tied), OUT / f"base-{'tied' if tied else 'untied'}")
generator = torch.Generator().manual_seed(5)
ids = torch.randint(3, 48, (2, 12), generator=generator)
labels = ids.clone()
labels[:, :3] = -100
for name, options in CASES.items():
    model = get_peft_model(base(name == "tied"), LoraConfig(task_type="CAUSAL_LM", **options))
    folder = OUT / name
    if name == "pissa":
        # As PEFT's documentation has it: the start is saved as a plain adapter, so that loading it decomposes nothing.
        model.peft_config["default"].init_lora_weights = True
        save(model, OUT / "pissa-start")
        model.peft_config["default"].init_lora_weights = "pissa"
    for parameter_name, p in model.named_parameters():
        if p.requires_grad:
            p.data = p.data + torch.randn(p.shape, generator=generator) * (0.02 if name == "pissa" else 0.1)
    output = model(input_ids=ids, labels=labels)
    output.loss.backward()
    reference = {"input_ids": ids, "labels": labels, "logits": output.logits.detach(), "loss": output.loss.detach()}
    for parameter_name, p in model.named_parameters():
        if p.requires_grad:
            reference[f"grad.{parameter_name}"] = p.grad
    if name == "pissa":
        save(model, OUT / "pissa-converted", path_initial_model_for_weight_conversion=str(OUT / "pissa-start"))
        model.peft_config["default"].init_lora_weights = True
    save(model, folder)
    save_file({key: value.contiguous() for key, value in reference.items()}, folder / "reference.safetensors")
    print(name, output.loss.item(), sum(p.numel() for p in model.parameters() if p.requires_grad))
for path in OUT.glob("*/adapter_config.json"):
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = None
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
